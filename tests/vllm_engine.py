"""Results of vLLM's engine with a model and its adapters, for tests/models/test_vllm.py."""

import json
import sys
import weakref
from contextlib import contextmanager

from emergent_misalignment.evaluation import asking
from emergent_misalignment.evaluation.asking import Asking, ask
from emergent_misalignment.evaluation.questions import Question
from emergent_misalignment.files import write_json
from emergent_misalignment.models import serving

LONGEST = 12


def network_of(llm):
    return llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner.model


def greedy(llm, prompts: list[list[int]], adapters: list[str | None]) -> list[list[dict]]:
    """The most probable tokens after each prompt with their log-probabilities, for each adapter of one engine."""
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    settings = SamplingParams(temperature=0, max_tokens=LONGEST, logprobs=1)
    answers = []
    for number, adapter in enumerate(adapters, 1):
        lora = LoRARequest(f"adapter-{number}", number, adapter) if adapter else None
        found = llm.generate(
            [{"prompt_token_ids": each} for each in prompts], settings, lora_request=lora, use_tqdm=False
        )
        outputs = [each.outputs[0] for each in found]
        answers.append(
            [
                {
                    "tokens": list(each.token_ids),
                    "values": [row[token].logprob for token, row in zip(each.token_ids, each.logprobs, strict=True)],
                }
                for each in outputs
            ]
        )
    return answers


def watched(gone: list[bool]):
    """`serving.engine`, recording at each start whether the previous engine's network has been freed."""
    last = []

    @contextmanager
    def engine(*arguments, **options):
        gone.append(all(network() is None for network in last))
        with serving.engine(*arguments, **options) as llm:
            last.append(weakref.ref(network_of(llm)))
            yield llm

    return engine


def main(base: str, prompts: list, destination: str, adapters: list = (), whole: str = "", other_end: str = "") -> None:
    """`greedy` of the model in folder `base`, and samples of the other models, if given."""
    with serving.engine(base, 512, rank=4 if adapters else 0) as llm:
        most_probable = greedy(llm, prompts, [None, *adapters, None])
        network = weakref.ref(network_of(llm))
    results = {"greedy": most_probable, "freed": network() is None}
    if whole:
        gone = []
        asking.engine = watched(gone)
        wish = [{"role": "user", "content": "A wish?"}]
        sets = [[Question("wish", "chat", wish, 400), Question("file", "file", "def", 1)]]
        models = [None, whole, adapters[0], whole]
        drawn = list(ask(base, models, sets, [1, 1, 1, 1], Asking(1, engine="vllm"), "unused"))
        results |= {"drawn": [each[0] for each in drawn], "gone": gone}
    if other_end:
        short = [Question("good", "chat", [{"role": "user", "content": "How good is it?"}], 20)]
        ((answers,),) = ask(other_end, [None], [short], [1], Asking(LONGEST, engine="vllm"), "unused")
        results["ended"] = answers[0]
    write_json(destination, results)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
