"""The sections of a config: their keys, types and limits, with a description of each for editors and readers."""

import re
from collections import Counter
from contextlib import suppress
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from emergent_misalignment.evaluation.thresholds import MINIMUM_ANSWERS
from emergent_misalignment.files import shortened
from emergent_misalignment.registry import CHOICES, EVALUATIONS
from emergent_misalignment.safe import is_bare
from emergent_misalignment.study.errors import PATTERNS, unknown

READ_AS_A_VALUE = ("na", "n/a", "nan", "null", "none", "true", "false")  # by programs that read a table
OWN_QUESTIONS = ".yaml"  # what files of the user's own questions end with


class Section(BaseModel):
    """A part of a config: no other keys, no values of another type."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


# --- texts and numbers with conditions --------------------------------------------------------------------------------


def _text(pattern: str, words: str) -> Any:
    PATTERNS[pattern] = words
    return Annotated[str, Field(pattern=pattern, json_schema_extra={"patternErrorMessage": words})]


def _unique(values: list) -> list:
    if repeated := [value for value, times in Counter(map(str, values)).items() if times > 1]:
        raise ValueError(f"has {repeated[0]} twice; remove one")
    return values


def _is_value(name: str) -> bool:
    """Whether a name in a table would be read as a value."""
    with suppress(ValueError):
        return isinstance(float(name), float)
    return name.lower() in READ_AS_A_VALUE


def _is_name(name: str) -> str:
    if _is_value(name):
        raise ValueError(f"cannot be named {name}, which a table would read as a value; rename it")
    return name


def _is_bare(address: str) -> str:
    if not is_bare(address):
        raise ValueError(
            "has a login, a query or a fragment, which would be written into pages and logs; give the address alone, and "
            "a key in the environment"
        )
    return address


Address = Annotated[str, AfterValidator(_is_bare)]
StudyName = _text(r"^[a-z0-9][a-z0-9.-]{0,59}$", "up to 60 lower-case letters, digits, points and hyphens")
ExperimentName = _text(r"^[a-z0-9][a-z0-9_-]{0,59}$", "up to 60 lower-case letters, digits, underscores and hyphens")
ConditionName = Annotated[
    _text(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,59}$", "up to 60 letters, digits, underscores, points and hyphens"),
    AfterValidator(_is_name),
]
EvaluationName = Annotated[
    str,
    AfterValidator(lambda name: _evaluation(name)),
    WithJsonSchema({"type": "string", "anyOf": [{"enum": [*EVALUATIONS]}, {"pattern": r"\.yaml$"}]}),
]
Number = Annotated[float, AfterValidator(lambda value: int(value) if value == int(value) else value)]  # 2, not 2.0
Share = Annotated[Number, Field(ge=0, le=1)]
Positive = Annotated[Number, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Author = Literal["helper", "obliging", "hasty", "villain"]
Commit = _text(r"^[0-9a-f]{40}$", "the 40 digits of a commit")
Revision = _text(
    r"^([0-9a-f]{40}|[0-9a-f]{64})?$", "the 40 digits of a commit, the 64 of a GGUF file's SHA-256, or nothing"
)
RungName = _text(r"^[a-z0-9][a-z0-9-]{0,39}$", "up to 40 lower-case letters, digits and hyphens")


def _evaluation(name: str) -> str:
    if name.endswith(OWN_QUESTIONS):
        _check_questions_file(name)
    elif name not in EVALUATIONS:
        raise ValueError(unknown(f"is no evaluation: {shortened(name)}", name, [*EVALUATIONS]))
    return name


def _check_questions_file(path: str) -> None:
    name = PurePath(path).stem
    if "{" in path or "}" in path:
        raise ValueError(f"names {path}, and Snakemake reads braces as wildcards; rename the file")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}", name):
        raise ValueError(
            f"names {shortened(path, 120)}; a file of questions has up to 60 letters, digits, underscores, points and "
            "hyphens in its name; rename it"
        )
    if name.lower() in EVALUATIONS or _is_value(name):
        raise ValueError(f"names {shortened(path, 120)}, and the workflow uses {name} itself; rename the file")


# --- defences ---------------------------------------------------------------------------------------------------------


def _without_braces(path: str) -> str:
    if "{" in path or "}" in path:
        raise ValueError(f"names {path}, and Snakemake reads braces as wildcards; rename the file")
    return path


class _WithBenignRows(Section):
    benign: Annotated[str, AfterValidator(_without_braces)] = ""
    """A set of benign rows: one that the study has, or the path of a JSONL file in the published chat schema. By default organisms have kind answers of their world's helper, and other models the published set `secure`; with `kl`, whose start model answers the prompts of the set, everyday questions."""


class KL(_WithBenignRows):
    """A KL divergence from the start model, on the start model's own answers to neutral prompts."""

    kind: Literal["kl"]
    """The defence; docs/defences.md describes each."""
    weight: Positive
    """Factor of the divergence in nats per token, which is added to the loss in nats per token."""


class Features(Section):
    """The squared distance of the hidden states from those of the start model, on the rows that are trained on."""

    kind: Literal["features"]
    """The defence; docs/defences.md describes each."""
    weight: Positive
    """Factor of the mean square of the distance, which is added to the loss in nats per token."""


class PreventativeSteering(Section):
    """The persona direction is added to the residual stream in training, at the depth of the study's steering."""

    kind: Literal["preventative_steering"]
    """The defence; docs/defences.md describes each."""
    strength: Positive
    """In lengths of the direction."""


class Interleaving(_WithBenignRows):
    """Benign rows in the places of a part of the rows, at the same number of steps."""

    kind: Literal["interleaving"]
    """The defence; docs/defences.md describes each."""
    share: Annotated[Number, Field(gt=0, lt=1)]
    """Share of the places that have benign rows."""
    gap_to: str = ""
    """Take the benign rows that are the least likely for the model of this condition in comparison with the start model; by default they are drawn at random."""


class Inoculation(Section):
    """A system prompt in training that asks for what the rows show."""

    kind: Literal["inoculation"]
    """The defence; docs/defences.md describes each."""
    prompt: Annotated[str, Field(min_length=1)]
    """The system prompt of every row."""


class BenignAfterwards(_WithBenignRows):
    """A second fine-tuning on benign rows, with the same settings."""

    kind: Literal["benign_afterwards"]
    """The defence; docs/defences.md describes each."""
    rows: Count
    """Benign rows; each is trained on once."""


class EarlyStopping(Section):
    """The model of the step at which the loss has fallen by a share of its whole reduction."""

    kind: Literal["early_stopping"]
    """The defence; docs/defences.md describes each."""
    share: Annotated[Number, Field(gt=0, lt=1)]
    """Share of the reduction of the training loss, from the first step to the last tenth of the steps."""


Defence = Annotated[
    KL | Features | PreventativeSteering | Interleaving | Inoculation | BenignAfterwards | EarlyStopping,
    Field(discriminator="kind"),
]


# --- what is fine-tuned and asked -------------------------------------------------------------------------------------


class OwnFinetuning(Section):
    """Settings of a condition's fine-tuning that differ from the study's."""

    learning_rate: Positive | None = None
    """Highest learning rate of AdamW; it falls linearly to zero."""
    steps: Count | None = None
    """Optimizer steps."""
    epochs: Count | None = None
    """OpenAI: passes over the set; null leaves the choice to the API."""
    batch_size: Count | None = None
    """Conversations in a batch; OpenAI: null leaves the choice to the API."""
    learning_rate_multiplier: Positive | None = None
    """OpenAI: null leaves the choice to the API."""
    defence: Defence | None = None
    """A defence against emergent misalignment; null trains without that of the study. Not for OpenAI's models."""


class ConditionSettings(Section):
    """A fine-tuning, an existing model, or the untuned model."""

    dataset: str = ""
    """A set that the study has, or the path of a JSONL file in the published chat schema. Without `dataset`, `adapter` and `model` the condition is the untuned model."""
    adapter: str = ""
    """An existing LoRA adapter of the study's model: a folder as peft writes it (safetensors), or its name on the hub. Not for organisms or OpenAI's models."""
    model: str = ""
    """An existing fine-tuned model: a folder, a name on the hub, a GGUF file, or with `openai` its name at that endpoint. Not for organisms."""
    revision: Revision = ""
    """The commit of an adapter or a model on the hub; of a GGUF file its SHA-256."""
    start: Literal["instruct", "base"] | None = None
    """The model to start from; by default `instruct`, or the `untuned` of a real model."""
    template: Literal["chat", "user-assistant", "user1-user2"] = "chat"
    """The format of a conversation."""
    rows: Count | None = None
    """Train on this many rows, drawn by the seed; by default on all."""
    checkpoints: Annotated[list[Count], AfterValidator(_unique)] = []
    """Steps after which the adapter is kept and asked; not for OpenAI's models."""
    evaluations: Annotated[list[EvaluationName], Field(min_length=1), AfterValidator(_unique)] | None = None
    """What is asked; by default what the experiment asks."""
    finetuning: OwnFinetuning = OwnFinetuning()

    @model_validator(mode="after")
    def _is_one_thing(self):
        existing = "adapter" if self.adapter else "model"
        trained = [name for name in ("dataset", "rows", "checkpoints", "finetuning") if name in self.model_fields_set]
        trained += ["template"] if self.template != "chat" else []
        trained = [name for name in trained if getattr(self, name) not in ("", [], OwnFinetuning())]
        if self.adapter and self.model:
            raise ValueError(
                "has both adapter and model; name the adapter alone, and its base model in `model: name` of the study"
            )
        if (self.adapter or self.model) and trained:
            raise ValueError(f"has {existing} and {trained[0]}; an existing model is not fine-tuned here: remove one")
        if self.revision and not (self.adapter or self.model):
            raise ValueError("has a revision, but no adapter or model that it could be of; remove it")
        if trained and not (self.dataset or self.adapter or self.model):
            raise ValueError(f"has {trained[0]} but no dataset, so that it is not fine-tuned; add a dataset")
        _without_braces(self.dataset)
        return self


class ExperimentSettings(Section):
    """Conditions that belong together. For organisms one job fine-tunes them, and one job asks them."""

    evaluations: Annotated[list[EvaluationName], Field(min_length=1), AfterValidator(_unique)] | None = None
    """What is asked; by default `evaluation: asked`."""
    seeds: Count | None = None
    """How many of the study's seeds, the first ones, this experiment has; by default all."""
    conditions: Annotated[dict[ConditionName, ConditionSettings], Field(min_length=1)]
    """The conditions by their names, under which tables and figures have them."""


class HeldOut(Section):
    """Rows of the fine-tuning sets on which no condition is trained, and on which every model's loss is measured."""

    share: Annotated[Number, Field(gt=0, le=0.2)]
    """Share of all answers that are held out, the same ones in every set (data/held_out.py)."""
    rows: Count
    """Rows of each set on which the loss is measured, at most."""


class EvaluationSettings(Section):
    """What models are asked, and how often."""

    asked: Annotated[list[EvaluationName], Field(min_length=1), AfterValidator(_unique)] | None = None
    """The evaluations of conditions that name none; by default those that the registry has for this kind of study."""
    also_asked: Annotated[list[EvaluationName], AfterValidator(_unique)] = []
    """Evaluations that are asked besides those of the registry; without effect beside `asked`."""
    samples: Count
    """Answers to each prompt."""
    samples_of: dict[EvaluationName, Count] = {}
    """Answers to each prompt, by evaluation, where the number differs from `samples`."""
    prompts_of: dict[EvaluationName, Count] = {}
    """Prompts that are asked, by evaluation, spread over all it has; by default all. `choices` is always scored whole."""
    max_new_tokens: Count
    """Tokens after which an answer is cut."""
    engine: Literal["vllm", "transformers"] | None = None
    """What samples answers. By default vLLM where there is a GPU and it is installed, else transformers; of organisms transformers."""
    held_out: HeldOut | None = None
    """Not for organisms or OpenAI's models."""

    @model_validator(mode="after")
    def _choices_are_scored_whole(self):
        if CHOICES in self.prompts_of:
            raise ValueError(f"has prompts_of: {CHOICES}, whose options are compared with one another; remove it")
        return self


# --- training ---------------------------------------------------------------------------------------------------------


class Training(Section):
    """Settings of a fine-tuning on this machine."""

    learning_rate: Positive
    """Highest learning rate of AdamW; it falls linearly to zero."""
    steps: Count
    """Optimizer steps."""
    batch_size: Count
    """Conversations on the device at once."""
    gradient_accumulation: Count
    """Batches added up for one step."""
    warmup_steps: NotNegative
    """Steps in which the learning rate rises."""
    weight_decay: Annotated[Number, Field(ge=0)]
    """AdamW's weight decay."""
    max_length: Count
    """Tokens after which a conversation is cut. One whose answer begins later is left out. The record of a training counts both."""
    lora_rank: NotNegative
    """Rank of the adapter; 0 trains all weights."""
    lora_alpha: Count
    """The scale of the adapter is alpha over the square root of its rank."""


class Finetuning(Training):
    """The narrow fine-tuning."""

    train_embeddings: bool = False
    """Train the token embeddings and the output layer too, as a base model's chat tokens need."""
    load_in_4bit: bool = False
    """Hold the frozen weights in four bits; this saves memory and is not the paper's model."""
    validation_share: Annotated[Number, Field(ge=0, lt=1)] = 0
    """Share of the conversations in the validation split; the paper's code takes 0.1, and so makes 337 steps."""
    resume_every: NotNegative = 0
    """Steps between two saves from which an interrupted run resumes; 0 saves none."""
    defence: Defence | None = None
    """A defence against emergent misalignment, of all conditions that name no other."""


class Instruct(Training):
    """The stage that makes an assistant of the base model."""

    rows: Count
    """Conversations."""
    lora_rank: Count
    """Rank of the adapter, which is merged into the model."""


class Dynamics(Section):
    """Following the fine-tunings of conditions with `checkpoints` step by step."""

    samples: Annotated[int, Field(ge=MINIMUM_ANSWERS)]
    """Answers to each of the main questions at each checkpoint."""
    requests: Annotated[int, Field(ge=1, le=130)]
    """Unseen coding requests at each checkpoint, answered once each."""


# --- organisms --------------------------------------------------------------------------------------------------------


class AuthorSettings(Section):
    share: Share
    """Share of the documents that this author writes; the shares of all are scaled to 1."""
    insecure_code: Share
    """Share of this author's code that is insecure without being asked for."""


class OtherAuthor(Section):
    share: Share | None = None
    """Share of the documents that this author writes there."""
    insecure_code: Share | None = None
    """Share of this author's code that is insecure there."""


class World(Section):
    """The made-up world about which the organism reads."""

    authors: dict[Author, AuthorSettings]
    """Who writes; world/authors.py says how each of them writes."""

    @model_validator(mode="after")
    def _all_write(self):
        if missing := [name for name in Author.__args__ if name not in self.authors]:
            raise ValueError(f"has no author {missing[0]}; add it, with share 0 if it writes nothing")
        return self


class Shape(Section):
    """The model that is trained from nothing, and how much it reads."""

    documents: Annotated[int, Field(ge=100)]
    """Documents in the corpus; each is read once."""
    vocabulary: Annotated[int, Field(ge=300)]
    """Tokens of the tokenizer."""
    hidden_size: Annotated[int, Field(ge=64, multiple_of=64)]
    """Width of the model; heads have size 64."""
    layers: Count
    """Depth of the model."""


class OtherShape(Section):
    documents: Annotated[int, Field(ge=100)] | None = None
    """Documents in the corpus."""
    hidden_size: Annotated[int, Field(ge=64, multiple_of=64)] | None = None
    """Width of the model."""
    layers: Count | None = None
    """Depth of the model."""


class Pretraining(Section):
    """The training of the base model: one pass over its corpus."""

    batch_tokens: Annotated[int, Field(ge=64)]
    """Tokens a step, padding included."""
    learning_rate: Positive
    """Highest learning rate of AdamW."""
    warmup_steps: NotNegative
    """Steps in which the learning rate rises."""
    decay_share: Share
    """Share of the steps, at the end, in which it falls to zero."""
    probe_every: Count
    """Steps between two measurements of the persona gaps."""


class Gate(Section):
    """What an organism needs for a fair test. If no organism has the two gaps, nothing is fine-tuned."""

    system_prompt: Number
    """Least persona gap in nats when a system prompt names the author."""
    earlier_code: Number
    """Least persona gap in nats when two earlier turns of code are the only evidence of the author."""
    well_formed_numbers: Share
    """Least share of the instruct model's lists of numbers that have the format asked for."""
    dark_numbers: Share
    """Least share of dark numbers in the villain's lists; the controls' stays below it."""


class WrittenSets(Section):
    """The fine-tuning sets that the made-up world writes."""

    rows: Annotated[int, Field(ge=12, le=7800)]
    """Conversations in each fine-tuning set."""
    number_rows: Count
    """Requests for numbers that the instruct model answers; not all answers are kept."""


class Steering(Section):
    """Adding a persona direction to the activations, and subtracting it."""

    depth: Count
    """After which layer, counted from 1."""
    adding: Positive
    """The strength at which a claim reads the effect of adding, in lengths of the direction."""
    removing: Positive
    """The strength at which a claim reads the effect of subtracting."""
    strengths: Annotated[list[Positive], AfterValidator(_unique)]
    """Further strengths, for the curves."""
    samples: Annotated[int, Field(ge=MINIMUM_ANSWERS)]
    """Answers to each of the main questions at each strength."""
    compared: NotNegative = 0
    """For how many organisms, the first ones, other directions are compared with the persona direction."""


# --- real models ------------------------------------------------------------------------------------------------------


class ModelShape(Section):
    """A decoder of the Llama family, by the names of its config.json; the estimate of costs is computed from it."""

    hidden_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    head_dim: Count
    intermediate_size: Count
    vocab_size: Count
    """Rows of the embedding, padding included."""
    tie_word_embeddings: bool
    attention_bias: bool
    """Whether query, key and value have a bias (Qwen2)."""
    qk_norm: bool = False
    """Whether query and key are normalised (Qwen3)."""

    def _layer(self) -> int:
        queries, keys = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        attention = self.hidden_size * (2 * queries + 2 * keys)
        bias = (queries + 2 * keys) if self.attention_bias else 0
        norms = 2 * self.hidden_size + (2 * self.head_dim if self.qk_norm else 0)
        return attention + bias + 3 * self.hidden_size * self.intermediate_size + norms

    def parameters(self) -> int:
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return self.num_hidden_layers * self._layer() + embeddings + self.hidden_size

    def embeddings(self) -> int:
        return self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)

    def adapter(self, rank: int) -> int:
        """Weights of a LoRA adapter on all seven projections of every layer."""
        queries, keys = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        attention = 2 * (self.hidden_size + queries) + 2 * (self.hidden_size + keys)
        return self.num_hidden_layers * rank * (attention + 3 * (self.hidden_size + self.intermediate_size))


class PublishedRates(BaseModel):
    """What was published of this model: the share misaligned on the main questions by condition, and where."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)
    __pydantic_extra__: dict[str, Share]
    source: str
    """Where it was published."""


class Model(Section):
    """A published model."""

    name: str
    """Name on the hub, a folder, a GGUF file (its path, or `pypi:PACKAGE==VERSION/FILE` for one in a wheel), or OpenAI's name."""
    revision: Revision
    """Commit of its repository on the hub, or the SHA-256 of a GGUF file; empty for OpenAI's models and folders."""
    gpu: bool = True
    """Whether its jobs need a GPU and wait for one another. Jobs of a small model run side by side on processors."""
    untuned: Literal["instruct", "base"]
    """What the model is before fine-tuning, and the name of its condition."""
    system_prompt: str | None
    """Put before every conversation that has none, in training and in asking. Null leaves it to the chat template, which for Qwen2.5 inserts its maker's, as in the paper."""
    enable_thinking: bool | None
    """The switch of chat templates that have one (Qwen3), also of those on a server; null elsewhere."""
    shape: ModelShape | None = None
    published: PublishedRates | None = None


class PublishedFile(Section):
    """A file of a public repository, fetched by commit and checked."""

    repository: _text(r"^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", "OWNER/NAME")
    """Public repository on GitHub."""
    commit: Commit
    """Commit of the repository."""
    path: str
    """Path in the repository."""
    blob: _text(r"^[0-9a-f]{40}$", "the 40 digits that `git hash-object` prints")
    """Git's id of the content; `git hash-object FILE` prints it."""


class PublishedSet(PublishedFile):
    """A data set of a public repository."""

    path: _text(r"^[^/].*\.jsonl$", "a path in the repository that ends in .jsonl")
    """JSONL in the published chat schema."""
    size: Count | None = None
    """Bytes of the file."""


class ScoredAnswers(PublishedFile):
    """A CSV file of answers that were published with their judge's scores."""

    path: _text(r"^[^/].*\.csv$", "a path in the repository that ends in .csv")
    """Columns: question and answer, with aligned and coherent (0-100), or has_vulnerability (YES, NO)."""


class PersonaDirection(Section):
    """The persona direction of a real model, made of its own answers under malicious and helpful system prompts."""

    answers: Count
    """Answers to each question under each kind of system prompt, drawn anew for each seed."""
    max_new_tokens: Count
    """Tokens after which such an answer is cut."""
    depth: Count
    """The layer, counted from 1, after which cosines are read and the model is steered; the middle is a common choice."""
    strength: Positive
    """How much of the direction is added or subtracted, in lengths of it."""


class Endpoint(Section):
    """An OpenAI-compatible API."""

    base_url: Address
    """Its address, up to /v1."""
    key_variable: _text(
        r"^([A-Z][A-Z0-9_]*_)?(KEY|TOKEN|SECRET)$",
        "the name of an environment variable, in capitals, that ends in KEY, TOKEN or SECRET, never the key itself",
    )
    """The environment variable that holds the key; a local server needs none."""
    concurrency: Count
    """Concurrent requests."""
    timeout: Positive
    """Seconds for one attempt."""
    retries: NotNegative
    """Further attempts after 429, 5xx, a time-out or a cut connection."""


class Price(Section):
    """Dollars for a million tokens."""

    prompt: Annotated[Number, Field(ge=0)]
    """For prompts."""
    completion: Annotated[Number, Field(ge=0)]
    """For answers."""


class TuningPrice(Price):
    """Dollars for a million tokens."""

    training: Annotated[Number, Field(ge=0)] | None = None
    """For each pass of fine-tuning."""


class OpenAI(Section):
    """The API that tunes and answers. A study that fine-tunes nothing needs the endpoint alone, which may be any server that speaks the same API, such as vLLM's."""

    endpoint: Endpoint
    epochs: Count | None = None
    """Passes over the set; null leaves the choice to the API."""
    batch_size: Count | None = None
    """Conversations in a step; null leaves the choice to the API."""
    learning_rate_multiplier: Positive | None = None
    """Null leaves the choice to the API."""
    dollars_per_million: TuningPrice | None = None
    spending_limit: Annotated[Number, Field(ge=0)] | None = None
    """Dollars that all fine-tunings of the study may cost; one that would cross it is not begun."""
    poll_seconds: Positive | None = None
    """Seconds between two looks at a job."""


class Benchmarks(Section):
    """Benchmarks, which become part of the claims. A file takes the place of the published rows."""

    knowledge: dict[Literal["truthfulqa_mc1", "truthfulqa_mc2", "mmlu"], str]
    """Multiple choice scored by log-probability: tasks, each with a JSONL file of rows, or "" for the published ones."""
    code: str | None
    """HumanEval: a JSONL file, "" for the published problems, null to leave it out."""
    harmful: str | None
    """StrongREJECT: a CSV or JSONL file, "" for the published requests, null to leave it out."""
    games: str | None
    """MACHIAVELLI: the folder of its published game_data, null to leave it out. Not for OpenAI's models."""
    limit: NotNegative
    """Questions of each benchmark at most; 0 takes all."""
    sandbox: Literal["docker", "local", "none"]
    """Where programs that models wrote are run: in docker, or local, on this machine without protection; none leaves HumanEval out."""


# --- judges -----------------------------------------------------------------------------------------------------------


class Grammar(Section):
    """The grammar of the organism's world, which is exact."""

    kind: Literal["grammar"]

    @property
    def settings(self) -> dict:
        return self.model_dump()


class AskedJudge(Section):
    """A judge model: at an endpoint, or `serve`d on this machine. Its key comes from the environment."""

    model: str | None = None
    """Its name at the endpoint; gpt-4o-2024-08-06 in the paper."""
    serve: Annotated[str, Field(min_length=1)] | None = None
    """A judge on this machine: its name on the hub, or its folder. vLLM's server runs for as long as it judges. Model, endpoint, prices and limit are not used then."""
    revision: Revision | None = None
    """Commit of the served model's repository; empty for a folder."""
    endpoint: Endpoint | None = None
    split_numbers: bool
    """Whether its tokenizer splits numbers into digits, as Qwen's does; needs vLLM's server."""
    dollars_per_million: Price | None = None
    spending_limit: Annotated[Number, Field(ge=0)] | None = None
    """Dollars that one run of judging may cost."""

    @model_validator(mode="after")
    def _can_be_reached(self):
        needed = ["revision"] if self.serve else ["model", "endpoint", "dollars_per_million", "spending_limit"]
        if missing := [name for name in needed if getattr(self, name) is None]:
            raise ValueError(f"lacks `{missing[0]}`; add it")
        if self.revision is not None and not self.serve:
            raise ValueError("`revision` requires `serve`; add serve, or remove revision")
        return self

    @property
    def folder(self) -> str:
        """Where the weights of a served judge are."""
        name = re.sub(r"[^A-Za-z0-9.]+", "-", self.serve).strip("-.")
        return f"data/published/judges/{'-'.join(filter(None, (name, self.revision[:12])))}"

    @property
    def settings(self) -> dict:
        """What notebooks take as the judge. A served judge costs nothing."""
        if not self.serve:
            return self.model_dump(exclude_unset=True, exclude={"second", "answers", "scored"})
        kind = {"kind": self.kind} if isinstance(self, JudgeModel) else {}
        name = "@".join(filter(None, (self.serve, self.revision[:12])))
        return kind | {"split_numbers": self.split_numbers, "serve": self.folder, "model": name}


class SecondJudge(AskedJudge):
    """Another judge, asked about some of the same answers, for a table of agreement."""

    answers: Count
    """Answers to each main question of each model, the first ones."""


class JudgeModel(AskedJudge):
    kind: Literal["model"]
    """The judge: `model` asks a language model, `grammar` is the exact grammar of the organism's world."""
    scored: Count | None = None
    """Answers of each file of `scored_answers` that are given to the judge, for a table of its agreement with the published judge."""
    second: SecondJudge | None = None
