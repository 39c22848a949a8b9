"""Which files a prompt names."""

from fleet.needs import Catalogue, kind_of


def prompt(**inputs):
    return {"1": {"class_type": "Loader", "inputs": inputs}, "2": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "steps": 3}}}


CATALOGUE = Catalogue([("checkpoints", "a"), ("loras", "a"), ("loras", "deep/b"), ("vae", "v")])


def test_an_input_of_a_loader_names_a_file_of_its_folder():
    assert CATALOGUE.needs(prompt(ckpt_name="a", lora_name="deep/b")) == (("checkpoints", "a"), ("loras", "deep/b"))


def test_an_unknown_input_may_mean_any_folder_and_backslashes_are_slashes():
    assert CATALOGUE.needs(prompt(whatever="a")) == (("checkpoints", "a"), ("loras", "a"))
    assert CATALOGUE.needs(prompt(lora_name="deep\\b")) == (("loras", "deep/b"),)


def test_other_texts_and_malformed_nodes_name_nothing():
    assert CATALOGUE.needs({**prompt(text="a picture", ckpt_name="missing", vae_name="a"), "3": 7, "4": {"inputs": []}}) == ()


def test_a_file_named_twice_is_there_once():
    assert CATALOGUE.needs({"1": {"inputs": {"vae_name": "v"}}, "2": {"inputs": {"vae_name": "v"}}}) == (("vae", "v"),)


def test_the_kind_of_a_prompt_follows_classes_and_models_not_values_or_ids():
    one, other = prompt(ckpt_name="a", seed=1), {"9" + key: node for key, node in prompt(ckpt_name="a", seed=2).items()}
    needs = CATALOGUE.needs(one)
    assert kind_of(one, needs) == kind_of(other, needs) != kind_of(one, ())
