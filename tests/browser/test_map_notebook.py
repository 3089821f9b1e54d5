"""The map in a real JupyterLab: the way through the course, who holds what, and its links."""

import re

from playwright.sync_api import expect


def test_the_map_runs_and_its_pictures_fit_in_light_and_dark(lab, open_notebook) -> None:
    opened = open_notebook("00_map.ipynb", theme="dark")
    opened.run_all()
    way = opened.page.locator(".ft-course")
    expect(way.locator("a.stop")).to_have_count(11)
    expect(way.locator("a.stop").nth(1)).to_have_attribute("href", re.compile(r"02_sft\.ipynb"))
    who = opened.page.locator(".ft-rolemap")
    expect(who.locator("svg")).to_have_count(12)
    expect(opened.page.locator(".ft-glossary tbody tr").first).to_contain_text("预训练")
    for width in (1400, 800):
        opened.resize(width)
        for name, picture in (("way", way), ("who", who)):
            sizes = picture.evaluate("node => [node.scrollWidth, node.clientWidth]")
            assert sizes[0] <= sizes[1], f"{name} is wider than its cell at {width} pixels"
            opened.screenshot(f"map_{name}_dark_{width}", picture)


def test_words_stay_inside_their_boxes(lab, open_notebook) -> None:
    opened = open_notebook("00_map.ipynb")
    opened.run_all()
    who = opened.page.locator(".ft-rolemap")
    expect(who.locator("svg")).to_have_count(12)
    outside = who.locator("svg g").evaluate_all("""groups => groups.flatMap(g => {
        const box = g.querySelector("rect").getBBox();
        return [...g.querySelectorAll("text")].filter(t => {
            const text = t.getBBox();
            return text.x < box.x + 1 || text.x + text.width > box.x + box.width - 1
                || text.y < box.y || text.y + text.height > box.y + box.height;
        }).map(t => t.textContent);
    })""")
    assert outside == []
    opened.screenshot("map_way_light", opened.page.locator(".ft-course"))
    opened.screenshot("map_who_light", who)
    opened.screenshot("map_glossary_light", opened.page.locator(".ft-glossary"))
