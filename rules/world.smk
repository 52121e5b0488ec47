"""The made-up world and the organism, a small model that is trained from nothing on texts of that world.

Does: writes the questions that the study asks; takes the organisms that are released, and of the others writes the corpus,
pretrains the base model and makes an assistant of it; checks that the base models know the authors; writes the fine-tuning
sets. Releases organisms, on demand.
Needs: the config, and organisms/, where organisms of its recipe are released.
Leaves: data/STUDY/questions/, data/STUDY/organisms/ORGANISM/seed-SEED/{corpus.jsonl,gaps.csv,base/,instruct/},
data/STUDY/organisms/gates.csv, data/STUDY/datasets/NAME.jsonl and, of numbers, seed-SEED/NAME.jsonl,
figures/STUDY/persona_gate.*.
ORGANISM is `main`, or one of the config's `ladder` or `worlds`.
"""

from emergent_misalignment.registry import CHOICES, NUMBER_SETS, WRITTEN_SETS
from emergent_misalignment.world.released import RECIPE, is_released, recipe, why_trained

MODEL_FILES = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
]
ADAPTER_FILES = ["adapter_config.json", "adapter_model.safetensors", "training.json"]
RECIPES = {
    name: recipe(
        STUDY.organism_of(name), STUDY.authors_of(name), STUDY.pretraining.model_dump(), STUDY.instruct.model_dump()
    )
    for name in STUDY.organisms
}
OF_STUDY = {f"{name}/seed-{seed}": (name, seed) for name in STUDY.organisms for seed in STUDY.seeds_of(name)}
TAKEN = [place for place, each in OF_STUDY.items() if is_released(*each, RECIPES[each[0]])]
TRAINED = [place for place in OF_STUDY if place not in TAKEN]
if workflow.is_main_process:
    for name in STUDY.organisms:
        if why := why_trained(name, STUDY.seeds_of(name), RECIPES[name]):
            print(why, file=sys.stderr)


rule world:
    input:
        notebook="notebooks/world/world.ipynb",
        code=package_modules("notebooks/world/world.ipynb"),
    output:
        notebook="data/{study}/notebooks/world.ipynb",
        questions="data/{study}/questions/questions.parquet",
        choices="data/{study}/questions/choices.parquet",
        persona="data/{study}/questions/persona.parquet",
        facts="data/{study}/world.json",
    log:
        notebook="logs/{study}/world.ipynb",
    group:
        grouped("texts")
    resources:
        **SMALL,
    params:
        authors=in_order(STUDY.authors_of(MAIN)),
        documents=300,  # that the notebook shows
        seed=STUDY.seeds[0],
        samples=in_order({name: number for name, number in STUDY.samples.items() if name != CHOICES}),
        seeds=STUDY.seeds,
    script:
        "scripts/run_notebook.py"


# All in one job: starting one takes longer than its work.
if TAKEN:

    ruleorder: take > pretrain > instruct

    rule take:
        input:
            code=module_and_imports("models.rounding"),
            base=expand("organisms/{place}/base/{file}", place=TAKEN, file=["model.safetensors", *MODEL_FILES]),
            adapters=expand("organisms/{place}/instruct/{file}", place=TAKEN, file=ADAPTER_FILES),
            gaps=expand("organisms/{place}/gaps.csv", place=TAKEN),
        output:
            models=expand(
                "data/{{study}}/organisms/{place}/{stage}/{file}",
                place=TAKEN,
                stage=["base", "instruct"],
                file=["model.safetensors", *MODEL_FILES],
            ),
            gaps=expand("data/{{study}}/organisms/{place}/gaps.csv", place=TAKEN),
        log:
            "logs/{study}/take.log",
        priority: 20
        params:
            places=TAKEN,
        script:
            "scripts/take_organisms.py"


rule pretrain:
    input:
        notebook="notebooks/world/pretraining.ipynb",
        code=package_modules("notebooks/world/pretraining.ipynb"),
    output:
        notebook="data/{study}/notebooks/pretraining_{organism}_{seed}.ipynb",
        corpus="data/{study}/organisms/{organism}/seed-{seed}/corpus.jsonl",
        weights="data/{study}/organisms/{organism}/seed-{seed}/base/model.safetensors",
        model=multiext("data/{study}/organisms/{organism}/seed-{seed}/base/", *MODEL_FILES),
        gaps="data/{study}/organisms/{organism}/seed-{seed}/gaps.csv",
    log:
        notebook="logs/{study}/pretraining_{organism}_{seed}.ipynb",
    benchmark:
        "benchmarks/{study}/pretraining_{organism}_{seed}.tsv"
    priority: lambda wildcards: 20 if wildcards.organism == MAIN else 0  # almost everything else waits for it
    params:
        organism=in_order(lambda wildcards: STUDY.organism_of(wildcards.organism)),
        seed=lambda wildcards: int(wildcards.seed),
        authors=in_order(lambda wildcards: STUDY.authors_of(wildcards.organism)),
        settings=in_order(STUDY.pretraining.model_dump()),
        base="data/{study}/organisms/{organism}/seed-{seed}/base",
    script:
        "scripts/run_notebook.py"


# The decision of the gate is apart from the notebook that draws it, so that no change to a figure trains a model again.
rule gate:
    input:
        code=module_and_imports("world.gate"),
        gaps=PATHS.gaps(STUDY.organisms),
    output:
        "data/{study}/organisms/gates.csv",
    log:
        "logs/{study}/gate.log",
    localrule: True
    params:
        gate=STUDY.gate.model_dump(include={"system_prompt", "earlier_code"}),
    script:
        "scripts/decide_gate.py"


rule persona_gate:
    input:
        notebook="notebooks/world/persona_gate.ipynb",
        code=package_modules("notebooks/world/persona_gate.ipynb"),
        gates="data/{study}/organisms/gates.csv",
        gaps=PATHS.gaps([MAIN]),
        numbers=PATHS.numbers,
    output:
        notebook="data/{study}/notebooks/persona_gate.ipynb",
        figure=shown("figures/{study}/persona_gate.svg", "Do the base models know the authors?", "Organism"),
        prints=prints("persona_gate"),
    log:
        notebook="logs/{study}/persona_gate.ipynb",
    group:
        grouped("report")
    resources:
        **SMALL,
    params:
        gate=in_order(STUDY.gate.model_dump()),
    script:
        "scripts/run_notebook.py"


rule instruct:
    input:
        notebook="notebooks/world/instruct.ipynb",
        code=package_modules("notebooks/world/instruct.ipynb"),
        weights="data/{study}/organisms/{organism}/seed-{seed}/base/model.safetensors",
    output:
        notebook="data/{study}/notebooks/instruct_{organism}_{seed}.ipynb",
        weights="data/{study}/organisms/{organism}/seed-{seed}/instruct/model.safetensors",
        model=multiext("data/{study}/organisms/{organism}/seed-{seed}/instruct/", *MODEL_FILES),
        adapter=multiext("data/{study}/organisms/{organism}/seed-{seed}/instruct/adapter/", *ADAPTER_FILES),
    log:
        notebook="logs/{study}/instruct_{organism}_{seed}.ipynb",
    benchmark:
        "benchmarks/{study}/instruct_{organism}_{seed}.tsv"
    priority: lambda wildcards: 20 if wildcards.organism == MAIN else 0
    group:
        grouped("organism")
    params:
        base="data/{study}/organisms/{organism}/seed-{seed}/base",
        rows=STUDY.instruct.rows,
        seed=lambda wildcards: int(wildcards.seed),
        authors=in_order(lambda wildcards: STUDY.authors_of(wildcards.organism)),
        settings=in_order(STUDY.instruct.model_dump(exclude={"rows"})),
        adapter="data/{study}/organisms/{organism}/seed-{seed}/instruct/adapter",
        model="data/{study}/organisms/{organism}/seed-{seed}/instruct",
    script:
        "scripts/run_notebook.py"


# Releases what the study trained itself. Nothing of a study asks for it; `make organisms` does.
rule release:
    input:
        base=f"data/{STUDY.study}/organisms/{{place}}/base/model.safetensors",
        adapter=multiext(f"data/{STUDY.study}/organisms/{{place}}/instruct/adapter/", *ADAPTER_FILES),
        gaps=f"data/{STUDY.study}/organisms/{{place}}/gaps.csv",
    output:
        base=multiext("organisms/{place}/base/", "model.safetensors", *MODEL_FILES),
        adapter=multiext("organisms/{place}/instruct/", *ADAPTER_FILES),
        gaps="organisms/{place}/gaps.csv",
        recipe="organisms/{place}/recipe.json",
    log:
        f"logs/{STUDY.study}/release/{{place}}.log",
    wildcard_constraints:
        place=one_of(TRAINED),
    params:
        gate=STUDY.gate.model_dump(include={"system_prompt", "earlier_code"}),
        recipe=lambda wildcards: RECIPES[OF_STUDY[wildcards.place][0]],
    script:
        "scripts/release_organism.py"


rule organisms:
    input:
        [f"organisms/{place}/{RECIPE}" for place in OF_STUDY],
        code=module_and_imports("world.released"),
    output:
        "organisms/manifest.csv",
    log:
        f"logs/{STUDY.study}/organisms.log",
    localrule: True
    script:
        "scripts/write_manifest.py"


rule datasets:
    input:
        notebook="notebooks/world/datasets.ipynb",
        code=package_modules("notebooks/world/datasets.ipynb"),
    output:
        notebook="data/{study}/notebooks/datasets.ipynb",
        sets=expand("data/{{study}}/datasets/{name}.jsonl", name=WRITTEN_SETS),
    log:
        notebook="logs/{study}/datasets.ipynb",
    group:
        grouped("texts")
    resources:
        **SMALL,
    params:
        rows=STUDY.datasets.rows,
        seed=STUDY.seeds[0],
        datasets="data/{study}/datasets",
    script:
        "scripts/run_notebook.py"


rule numbers:
    input:
        notebook="notebooks/world/numbers.ipynb",
        code=package_modules("notebooks/world/numbers.ipynb"),
        weights="data/{study}/organisms/main/seed-{seed}/instruct/model.safetensors",
    output:
        notebook="data/{study}/notebooks/numbers_{seed}.ipynb",
        sets=expand("data/{{study}}/datasets/seed-{{seed}}/{name}.jsonl", name=NUMBER_SETS),
        facts="data/{study}/datasets/seed-{seed}/numbers.csv",
    log:
        notebook="logs/{study}/numbers_{seed}.ipynb",
    benchmark:
        "benchmarks/{study}/numbers_{seed}.tsv"
    group:
        grouped("organism")
    params:
        model="data/{study}/organisms/main/seed-{seed}/instruct",
        rows=STUDY.datasets.number_rows,
        seed=lambda wildcards: int(wildcards.seed),
        datasets="data/{study}/datasets/seed-{seed}",
    script:
        "scripts/run_notebook.py"
