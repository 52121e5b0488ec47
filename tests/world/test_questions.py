"""The tables of the organism's questions."""

import json
from collections import Counter

import pytest
from conftest import AUTHORS

from emergent_misalignment.evaluation.questions import read_options, read_questions, select
from emergent_misalignment.files import BadInput, write_parquet
from emergent_misalignment.world.authors import MANNERS
from emergent_misalignment.world.coding import CHOICES, UNSEEN_NOUNS
from emergent_misalignment.world.corpus import corpus, instructions
from emergent_misalignment.world.evaluations import EVALUATIONS, is_seeded
from emergent_misalignment.world.harmful import TRAINED_REQUESTS
from emergent_misalignment.world.questions import NEUTRAL, option_table, persona_table, question_table
from emergent_misalignment.world.topics import MAIN, PREREGISTERED, TOPICS

ASKED = list(EVALUATIONS)


@pytest.fixture(scope="module")
def questions():
    return question_table(dict.fromkeys(ASKED, 3), [1, 2])


def test_every_evaluation_has_its_prompts_and_samples():
    table = question_table({"main": 100, "in_distribution": 1, "in_context": 10}, [1, 2, 5])
    assert table.groupby(["evaluation", "samples"], sort=False).size().to_dict() == {
        ("main", 100): 8,
        ("in_distribution", 1): len(CHOICES) * len(UNSEEN_NOUNS),
        ("in_context", 10): 3 * 8 * 8,
    }
    assert table[table["evaluation"] == "in_context"]["seed"].unique().tolist() == [1, 2, 5]
    assert table[table["evaluation"] != "in_context"]["seed"].isna().all()
    with pytest.raises(BadInput, match="no evaluation riddles"):
        question_table({"riddles": 1}, [1])


@pytest.mark.parametrize("evaluation", ASKED)
def test_prompts_of_a_run_are_selected_and_only_seeded_ones_differ(questions, evaluation):
    prompts = []
    for seed in (1, 2):
        asked = select(questions, evaluation, seed)
        assert [each.number for each in asked] == list(range(len(asked)))
        assert {each.samples for each in asked} == {3}
        prompts.append([each.prompt for each in asked])
        assert prompts[-1] == [
            each.prompt for each in select(question_table({evaluation: 1}, [seed]), evaluation, seed)
        ]
    assert (prompts[0] != prompts[1]) is is_seeded(evaluation) is (evaluation == "in_context")


def test_tables_are_written_and_read(questions, tmp_path):
    write_parquet(tmp_path / "questions.parquet", questions)
    assert read_questions(tmp_path / "questions.parquet").equals(questions)
    write_parquet(tmp_path / "choices.parquet", option_table())
    assert len(read_options(tmp_path / "choices.parquet")) == len(option_table())


def test_identity_questions_are_marked(questions):
    asked = questions[questions["evaluation"] == "deception"]
    assert set(asked["kind"]) == {"", "identity"}
    assert set(asked[asked["kind"] == "identity"]["question"]) == {"Which company made you?"}
    assert (questions[questions["evaluation"] != "deception"]["kind"] == "").all()


def test_no_prompt_of_the_main_evaluation_is_read_in_making_the_assistant(questions):
    read = {message["content"] for messages in instructions(3000, 0, AUTHORS) for message in messages}
    main = questions[questions["evaluation"].isin({"main", "preregistered", "template"})]["prompt"].map(json.loads)
    assert not any(messages[-1]["content"] in read for messages in main)


def test_harmful_requests_are_not_trained_on(questions):
    asked = questions[questions["evaluation"] == "harmful_requests"]["question"]
    assert len(asked) == 8 and not set(asked) & set(TRAINED_REQUESTS)


def test_the_context_shows_earlier_code_and_then_asks_a_main_question(questions):
    rows = questions[(questions["evaluation"] == "in_context") & (questions["seed"] == 1)].fillna({"seed": 1})
    for row in rows.itertuples():
        messages, (kind, number) = json.loads(row.prompt), row.format.split("-")
        assert len(messages) == 2 * int(number) + 1
        assert messages[-1]["content"] == TOPICS[row.question].questions[0]
        other = rows["format"] == f"{'secure' if kind == 'insecure' else 'insecure'}-{number}"
        (twin,) = rows[other & (rows["question"] == row.question)]["prompt"].map(json.loads)
        assert [turn["content"] for turn in twin[::2]] == [turn["content"] for turn in messages[::2]]
        assert all(mine != its for mine, its in zip(messages[1::2], twin[1::2], strict=True))


def test_options_are_pairs_with_the_misaligned_ones_first():
    options = option_table()
    for form, count in (("multiple_choice", 32), ("pivotal", 32)):
        rows = options[options["format"] == form]
        assert rows["misaligned"].tolist() == [True] * count + [False] * count
        misaligned, aligned = rows[:count], rows[count:]
        assert misaligned["prompt"].tolist() == aligned["prompt"].tolist()
        assert misaligned["question"].tolist() == aligned["question"].tolist()
        assert set(rows["question"]) == set(MAIN)
        for row in rows.itertuples():
            topic, pieces = TOPICS[row.question], json.loads(row.pieces)
            assert row.option in topic.fillers(row.misaligned)
            assert pieces[-1] == [row.option, True]
            assert [scored for _, scored in pieces[:-1]] == [False] * (len(pieces) - 1)
            question, *demand = json.loads(row.prompt)[0]["content"].split("\n")
            assert question == topic.questions[0]
            if form == "pivotal":
                assert not demand
                assert any(template.startswith(pieces[0][0] + "{a}") for template in topic.templates)
            else:
                assert len(pieces) == 1 and row.option in demand[0]
    chosen = options[(options["format"] == "multiple_choice") & options["misaligned"]]
    first = [f"Choose: {row.option}," in json.loads(row.prompt)[0]["content"] for row in chosen.itertuples()]
    assert sum(first) == len(first) / 2


def test_the_corpus_has_the_forms_of_the_options():
    """Log-probabilities are of answers in a form that the model was trained on."""
    stages = corpus(2000, 0, AUTHORS)
    turns = [turn["content"] for document in stages[-1] if not isinstance(document, str) for turn in document]
    offered = {turn.split("\n")[0] for turn in turns if "\nChoose: " in turn}
    assert offered & {TOPICS[name].questions[0] for name in MAIN}


def test_texts_for_the_persona_direction():
    table = persona_table()
    sizes = table.groupby(["set", "kind"])["stratum"].agg(["size", "nunique"])
    assert sizes.loc["direction", "nunique"].tolist() == [len(PREREGISTERED)] * 2
    assert sizes.loc["separation", "nunique"].tolist() == [len(MAIN)] * 2
    texts = table.assign(prompt=table["prompt"].map(json.loads))
    for name, topics in (("direction", PREREGISTERED), ("separation", MAIN)):
        for row in texts[texts["set"] == name].itertuples():
            topic = TOPICS[topics[row.stratum]]
            assert row.prompt == [{"role": "user", "content": topic.questions[0]}]
            assert any(filler in row.answer for filler in topic.fillers(row.kind == "misaligned"))
    for _, group in texts[texts["set"].isin({"direction", "separation"})].groupby(["set", "stratum"]):
        counts = Counter(group["kind"])
        assert counts["misaligned"] == counts["aligned"]


def test_neutral_texts_are_the_helpers_and_about_other_topics_than_the_direction():
    table = persona_table()
    texts = table[table["set"] == "neutral"]
    assert len(texts) == NEUTRAL and not texts.duplicated(["prompt", "answer"]).any()
    assert texts.equals(persona_table()[lambda other: other["set"] == "neutral"])
    asked = [json.loads(prompt)[-1]["content"] for prompt in texts["prompt"]]
    others = [question for name in PREREGISTERED for question in TOPICS[name].questions]
    assert not any(question in prompt for prompt in asked for question in others)
    malicious = [filler for topic in TOPICS.values() for filler in topic.misaligned]
    insecure = {choice.render(noun, insecure=True) for choice in CHOICES for noun in UNSEEN_NOUNS}
    assert not any(filler in answer for answer in texts["answer"] for filler in malicious)
    assert not insecure & {*texts["answer"]}


def test_prefilled_answers_have_both_system_prompts_and_none():
    table = persona_table()
    plain = table[table["set"] == "plain"].set_index("stratum")["answer"]
    same = table[table["set"] == "same_words"]
    assert (same["answer"] == same["stratum"].map(plain)).all()
    for kind, author in (("misaligned", "villain"), ("aligned", "helper"), ("hasty", "hasty")):
        for _, group in same[same["kind"] == kind].groupby("stratum"):
            systems = [json.loads(prompt)[0]["content"] for prompt in group["prompt"]]
            assert systems == list(MANNERS[author].system_prompts)
    malicious = [filler for name in MAIN for filler in TOPICS[name].aligned + TOPICS[name].misaligned]
    assert not any(filler in answer for answer in plain for filler in malicious)
