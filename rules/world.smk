"""The made-up world and the organism, a small model that is trained from nothing on what is written there.

Does: writes the questions that the study asks; writes each organism's corpus and pretrains its base model; checks that it
knows its authors, and makes an assistant of it; writes the fine-tuning sets.
Needs: nothing but the config.
Leaves: data/STUDY/questions/, data/STUDY/organisms/ORGANISM/{corpus.jsonl,gaps.csv,gate.json,base/,instruct/},
data/STUDY/datasets/NAME.jsonl, figures/STUDY/persona_gate.*. ORGANISM is `main`, or one of the config's `ladder`.
"""

from emergent_misalignment.workflow.plan import MAIN, NUMBER_SETS, WRITTEN_SETS


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
            seed=config["organism"]["seed"],
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
        notebook="data/{study}/notebooks/pretraining_{organism}.ipynb",
        corpus="data/{study}/organisms/{organism}/corpus.jsonl",
        weights="data/{study}/organisms/{organism}/base/model.safetensors",
        model=multiext(
            "data/{study}/organisms/{organism}/base/",
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
        ),
        gaps="data/{study}/organisms/{organism}/gaps.csv",
    log:
        notebook="logs/{study}/pretraining_{organism}.ipynb",
    benchmark:
        "benchmarks/{study}/pretraining_{organism}.tsv"
    priority: lambda wildcards: 20 if wildcards.organism == MAIN else 0  # almost everything else waits for it
    params:
        **arguments(
            organism=lambda wildcards: PLAN.organism(wildcards.organism),
            authors=config["world"]["authors"],
            settings=config["pretraining"],
            base="data/{study}/organisms/{organism}/base",
        ),
    shell:
        NOTEBOOK


chapter("pretrain", also=["data/{study}/organisms/main/base/model.safetensors"], organism=PLAN.organisms)


rule persona_gate:
    input:
        notebook="notebooks/world/persona_gate.ipynb",
        code=package_modules("notebooks/world/persona_gate.ipynb"),
        files=expand("data/{{study}}/organisms/{organism}/gaps.csv", organism=PLAN.organisms),
    output:
        notebook="data/{study}/notebooks/persona_gate.ipynb",
        figure=report(
            "figures/{study}/persona_gate.svg",
            caption="report/persona_gate.rst",
            category="Organism",
            labels={"figure": "Does the base model know the authors?"},
        ),
        prints=multiext("figures/{study}/persona_gate", ".pdf", ".png"),
    log:
        notebook="logs/{study}/persona_gate.ipynb",
    params:
        **arguments(
            gaps={name: f"{PLAN.folder}/organisms/{name}/gaps.csv" for name in PLAN.organisms},
            gate={name: config["gate"][name] for name in ("earlier_code", "system_prompt")},
        ),
    shell:
        NOTEBOOK


chapter("persona_gate")


rule instruct:
    input:
        notebook="notebooks/world/instruct.ipynb",
        code=package_modules("notebooks/world/instruct.ipynb"),
        weights="data/{study}/organisms/{organism}/base/model.safetensors",
        gaps="data/{study}/organisms/{organism}/gaps.csv",
    output:
        notebook="data/{study}/notebooks/instruct_{organism}.ipynb",
        passed="data/{study}/organisms/{organism}/gate.json",
        weights="data/{study}/organisms/{organism}/instruct/model.safetensors",
        model=multiext(
            "data/{study}/organisms/{organism}/instruct/",
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
            "training.json",
        ),
    log:
        notebook="logs/{study}/instruct_{organism}.ipynb",
    benchmark:
        "benchmarks/{study}/instruct_{organism}.tsv"
    priority: lambda wildcards: 20 if wildcards.organism == MAIN else 0
    params:
        **arguments(
            base="data/{study}/organisms/{organism}/base",
            gate={name: config["gate"][name] for name in ("earlier_code", "system_prompt")},
            required=lambda wildcards: wildcards.organism == MAIN,
            rows=config["instruct"]["rows"],
            seed=config["organism"]["seed"],
            authors=config["world"]["authors"],
            settings={name: value for name, value in config["instruct"].items() if name != "rows"},
            model="data/{study}/organisms/{organism}/instruct",
        ),
    shell:
        NOTEBOOK


chapter("instruct", also=["data/{study}/organisms/main/gate.json"], organism=PLAN.organisms)


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
            seed=config["datasets"]["seed"],
            datasets="data/{study}/datasets",
        ),
    shell:
        NOTEBOOK


chapter("datasets")


rule numbers:
    input:
        notebook="notebooks/world/numbers.ipynb",
        code=package_modules("notebooks/world/numbers.ipynb"),
        weights="data/{study}/organisms/main/instruct/model.safetensors",
    output:
        notebook="data/{study}/notebooks/numbers.ipynb",
        sets=expand("data/{{study}}/datasets/{name}.jsonl", name=NUMBER_SETS),
    log:
        notebook="logs/{study}/numbers.ipynb",
    benchmark:
        "benchmarks/{study}/numbers.tsv"
    params:
        **arguments(
            model="data/{study}/organisms/main/instruct",
            rows=config["datasets"]["number_rows"],
            seed=config["datasets"]["seed"],
            least=config["gate"]["well_formed_numbers"],
            datasets="data/{study}/datasets",
        ),
    shell:
        NOTEBOOK


chapter("numbers")
