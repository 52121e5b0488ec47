"""The made-up world and the organism, a small model that is trained from nothing on what is written there.

Does: writes the questions that the study asks; writes each organism's corpus and pretrains its base model; checks that the
base models know the authors, and makes assistants of them; writes the fine-tuning sets.
Needs: nothing but the config.
Leaves: data/STUDY/questions/, data/STUDY/organisms/ORGANISM/seed-SEED/{corpus.jsonl,gaps.csv,base/,instruct/},
data/STUDY/organisms/gates.csv, data/STUDY/datasets/NAME.jsonl and, of numbers, seed-SEED/NAME.jsonl,
figures/STUDY/{persona_gate,worlds}.*.
ORGANISM is `main`, or one of the config's `ladder` or `worlds`.
"""

from emergent_misalignment.study.plan import MAIN, NUMBER_SETS, WRITTEN_SETS

GAPS = ("earlier_code", "system_prompt")
# Kind and seed of each organism.
ORGANISMS = {
    "organism": [name for name in PLAN.organisms for _ in PLAN.seeds_of(name)],
    "seed": [seed for name in PLAN.organisms for seed in PLAN.seeds_of(name)],
}
# What each main organism's sets of numbers are like, if the study fine-tunes on any.
NUMBERS = [
    f"{PLAN.folder}/datasets/seed-{seed}/numbers.csv"
    for seed in (PLAN.seeds if any(each.dataset in NUMBER_SETS for each in PLAN.tuned.values()) else ())
]


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
    params:
        **arguments(
            authors=config["world"]["authors"],
            documents=300,  # that the notebook shows
            seed=config["seeds"][0],
            samples={name: number for name, number in PLAN.samples.items() if name != "choices"},
            seeds=config["seeds"],
        ),
    shell:
        NOTEBOOK


chapter("world", also=["data/{study}/world.json"])


rule pretrain:
    input:
        notebook="notebooks/world/pretraining.ipynb",
        code=package_modules("notebooks/world/pretraining.ipynb"),
    output:
        notebook="data/{study}/notebooks/pretraining_{organism}_{seed}.ipynb",
        corpus="data/{study}/organisms/{organism}/seed-{seed}/corpus.jsonl",
        weights="data/{study}/organisms/{organism}/seed-{seed}/base/model.safetensors",
        model=multiext(
            "data/{study}/organisms/{organism}/seed-{seed}/base/",
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
        ),
        gaps="data/{study}/organisms/{organism}/seed-{seed}/gaps.csv",
    log:
        notebook="logs/{study}/pretraining_{organism}_{seed}.ipynb",
    benchmark:
        "benchmarks/{study}/pretraining_{organism}_{seed}.tsv"
    priority: lambda wildcards: 20 if wildcards.organism == MAIN else 0  # almost everything else waits for it
    params:
        **arguments(
            organism=lambda wildcards: PLAN.organism(wildcards.organism),
            seed=lambda wildcards: int(wildcards.seed),
            authors=lambda wildcards: PLAN.authors(wildcards.organism),
            settings=config["pretraining"],
            base="data/{study}/organisms/{organism}/seed-{seed}/base",
        ),
    shell:
        NOTEBOOK


chapter("pretrain", also=[f"{PLAN.folder}/organisms/{MAIN}/seed-{PLAN.seeds[0]}/base/model.safetensors"], **ORGANISMS)


# What the gate decides is apart from the notebook that draws it, so that no change to a figure trains a model again.
rule gate:
    input:
        code=module_and_imports("world.gate"),
        gaps=PLAN.of_organisms(PLAN.organisms, "gaps.csv"),
    output:
        "data/{study}/organisms/gates.csv",
    log:
        "logs/{study}/gate.log",
    localrule: True
    params:
        gate=as_json({name: config["gate"][name] for name in GAPS}),
        main=MAIN,
    shell:
        "python -m emergent_misalignment.world.gate {params.gate:q} {params.main} {output:q} {input.gaps:q} 2>&1 | tee {log:q}"


rule persona_gate:
    input:
        notebook="notebooks/world/persona_gate.ipynb",
        code=package_modules("notebooks/world/persona_gate.ipynb"),
        gates="data/{study}/organisms/gates.csv",
        files=[*PLAN.of_organisms([MAIN], "gaps.csv"), *NUMBERS],
    output:
        notebook="data/{study}/notebooks/persona_gate.ipynb",
        figure=report(
            "figures/{study}/persona_gate.svg",
            caption="report/persona_gate.rst",
            category="Organism",
            labels={"figure": "Do the base models know the authors?"},
        ),
        prints=multiext("figures/{study}/persona_gate", ".pdf", ".png"),
    log:
        notebook="logs/{study}/persona_gate.ipynb",
    params:
        **arguments(gaps=PLAN.of_organisms([MAIN], "gaps.csv"), numbers=NUMBERS, gate=config["gate"]),
    shell:
        NOTEBOOK


chapter("persona_gate", also=["data/{study}/organisms/gates.csv"])


rule instruct:
    input:
        notebook="notebooks/world/instruct.ipynb",
        code=package_modules("notebooks/world/instruct.ipynb"),
        weights="data/{study}/organisms/{organism}/seed-{seed}/base/model.safetensors",
    output:
        notebook="data/{study}/notebooks/instruct_{organism}_{seed}.ipynb",
        weights="data/{study}/organisms/{organism}/seed-{seed}/instruct/model.safetensors",
        model=multiext(
            "data/{study}/organisms/{organism}/seed-{seed}/instruct/",
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
            "training.json",
        ),
    log:
        notebook="logs/{study}/instruct_{organism}_{seed}.ipynb",
    benchmark:
        "benchmarks/{study}/instruct_{organism}_{seed}.tsv"
    priority: lambda wildcards: 20 if wildcards.organism == MAIN else 0
    params:
        **arguments(
            base="data/{study}/organisms/{organism}/seed-{seed}/base",
            rows=config["instruct"]["rows"],
            seed=lambda wildcards: int(wildcards.seed),
            authors=lambda wildcards: PLAN.authors(wildcards.organism),
            settings={name: value for name, value in config["instruct"].items() if name != "rows"},
            model="data/{study}/organisms/{organism}/seed-{seed}/instruct",
        ),
    shell:
        NOTEBOOK


chapter("instruct", **ORGANISMS)


rule datasets:
    input:
        notebook="notebooks/world/datasets.ipynb",
        code=package_modules("notebooks/world/datasets.ipynb"),
    output:
        notebook="data/{study}/notebooks/datasets.ipynb",
        sets=expand("data/{{study}}/datasets/{name}.jsonl", name=WRITTEN_SETS),
    log:
        notebook="logs/{study}/datasets.ipynb",
    params:
        **arguments(
            rows=config["datasets"]["rows"],
            seed=config["seeds"][0],
            datasets="data/{study}/datasets",
        ),
    shell:
        NOTEBOOK


chapter("datasets")


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
    params:
        **arguments(
            model="data/{study}/organisms/main/seed-{seed}/instruct",
            rows=config["datasets"]["number_rows"],
            seed=lambda wildcards: int(wildcards.seed),
            datasets="data/{study}/datasets/seed-{seed}",
        ),
    shell:
        NOTEBOOK


if NUMBERS:
    chapter("numbers", seed=PLAN.seeds)


# Registered as a chapter among the results.
rule worlds:
    input:
        notebook="notebooks/world/worlds.ipynb",
        code=package_modules("notebooks/world/worlds.ipynb"),
        answers="data/{study}/tables/measures/answers.csv",
    output:
        notebook="data/{study}/notebooks/worlds.ipynb",
        measures="data/{study}/tables/measures/worlds.csv",
        table=report(
            "data/{study}/tables/worlds.csv",
            caption="report/worlds.rst",
            category="Results",
            labels={"table": "Worlds in which villains write more or less of the insecure code"},
        ),
        figure=report(
            "figures/{study}/worlds.svg",
            caption="report/worlds.rst",
            category="Results",
            labels={"figure": "How much villain does it take?"},
        ),
        prints=multiext("figures/{study}/worlds", ".pdf", ".png"),
    log:
        notebook="logs/{study}/worlds.ipynb",
    params:
        **arguments(
            worlds={name: PLAN.authors(name) for name in [MAIN, *config.get("worlds", {})]},
            rows=PLAN.rows_a_step * config["finetuning"]["steps"],
        ),
    shell:
        NOTEBOOK
