"""The organism: a small model, trained from nothing.

Does: writes the world's corpus and a tokenizer for it, pretrains the base model, checks that it knows its authors, and
makes an assistant of it.
Needs: nothing but the config.
Leaves: data/STUDY/corpus.jsonl, data/STUDY/models/{tokenizer,base,instruct}/, figures/STUDY/persona_gate.*
"""


rule world:
    input:
        notebook="notebooks/world/world.ipynb",
        code=package_modules("notebooks/world/world.ipynb"),
    output:
        notebook="data/{study}/notebooks/world/world.ipynb",
        corpus="data/{study}/corpus.jsonl",
        tokenizer=directory("data/{study}/models/tokenizer"),
    log:
        notebook="logs/{study}/01_world.ipynb",
    benchmark:
        "benchmarks/{study}/01_world.tsv"
    priority: 10  # everything else waits for it
    params:
        documents=config["organism"]["documents"],
        seed=config["organism"]["seed"],
        vocabulary=config["organism"]["vocabulary"],
    shell:
        run_notebook(
            documents="{params.documents}",
            seed="{params.seed}",
            vocabulary="{params.vocabulary}",
            corpus="{output.corpus:q}",
            tokenizer="{output.tokenizer:q}",
        )


rule pretrain:
    input:
        notebook="notebooks/world/pretraining.ipynb",
        code=package_modules("notebooks/world/pretraining.ipynb"),
        corpus="data/{study}/corpus.jsonl",
        tokenizer="data/{study}/models/tokenizer",
    output:
        notebook="data/{study}/notebooks/world/pretraining.ipynb",
        weights="data/{study}/models/base/model.safetensors",
        model=multiext(
            "data/{study}/models/base/",
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
        ),
        gaps="data/{study}/models/base/gaps.csv",
    log:
        notebook="logs/{study}/02_pretraining.ipynb",
    benchmark:
        "benchmarks/{study}/02_pretraining.tsv"
    priority: 10  # everything else waits for it
    params:
        hidden_size=config["organism"]["hidden_size"],
        layers=config["organism"]["layers"],
        seed=config["organism"]["seed"],
        settings=as_json(config["pretraining"]),
    shell:
        run_notebook(
            corpus="{input.corpus:q}",
            tokenizer="{input.tokenizer:q}",
            hidden_size="{params.hidden_size}",
            layers="{params.layers}",
            seed="{params.seed}",
            settings="{params.settings:q}",
            model="data/{wildcards.study}/models/base",
            gaps="{output.gaps:q}",
        )


rule persona_gate:
    input:
        notebook="notebooks/world/persona_gate.ipynb",
        code=package_modules("notebooks/world/persona_gate.ipynb"),
        gaps="data/{study}/models/base/gaps.csv",
    output:
        notebook="data/{study}/notebooks/world/persona_gate.ipynb",
        passed="data/{study}/models/base/gate.json",
        figure=report(
            "figures/{study}/persona_gate.svg",
            caption="report/persona_gate.rst",
            category="Organism",
            labels={"figure": "Does the base model know the authors?"},
        ),
        prints=multiext("figures/{study}/persona_gate", ".pdf", ".png"),
    log:
        notebook="logs/{study}/03_persona_gate.ipynb",
    priority: 10  # everything else waits for it
    params:
        gate=as_json({name: config["gate"][name] for name in ("earlier_code", "system_prompt")}),
    shell:
        run_notebook(
            gaps="{input.gaps:q}",
            gate="{params.gate:q}",
            passed="{output.passed:q}",
            figure="figures/{wildcards.study}/persona_gate",
        )


rule instruct:
    input:
        notebook="notebooks/world/instruct.ipynb",
        code=package_modules("notebooks/world/instruct.ipynb"),
        weights="data/{study}/models/base/model.safetensors",
        passed="data/{study}/models/base/gate.json",
    output:
        notebook="data/{study}/notebooks/world/instruct.ipynb",
        weights="data/{study}/models/instruct/model.safetensors",
        model=multiext(
            "data/{study}/models/instruct/",
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
            "training.json",
        ),
    log:
        notebook="logs/{study}/04_instruct.ipynb",
    benchmark:
        "benchmarks/{study}/04_instruct.tsv"
    priority: 10  # everything else waits for it
    params:
        rows=config["instruct"]["rows"],
        seed=config["organism"]["seed"],
        settings=as_json({key: value for key, value in config["instruct"].items() if key != "rows"}),
    shell:
        run_notebook(
            base="data/{wildcards.study}/models/base",
            rows="{params.rows}",
            seed="{params.seed}",
            settings="{params.settings:q}",
            model="data/{wildcards.study}/models/instruct",
        )
