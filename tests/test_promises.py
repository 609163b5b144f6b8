"""What is promised, each promise with a test that holds it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

# By chapter: the promise in a few words, and the test that holds it.
PROMISES: list[tuple[str, str]] = [
    # classes and constructors
    ("every documented name imports", "test_promises_rules.py::test_documented_names_import"),
    ("positional order and defaults", "test_rules.py::test_documented_constructors"),
    ("what was added is given by keyword", "test_rules.py::test_documented_constructors"),
    ("every rule has every option", "test_constructors.py::test_every_option_is_in_the_signature_of_a_rule"),
    ("methods and functions by their documented words", "test_promises_rules.py::test_documented_methods"),
    ("schedules by their documented words", "test_promises_rules.py::test_documented_methods"),
    ("each rule is its equation", "test_rules.py::test_reference_and_backends"),
    ("each rule is its equation, by hand", "test_rules.py::test_first_step_by_hand"),
    ("RMSProp divides by the updated average", "test_rules.py::test_first_step_by_hand"),
    ("both spellings of RMSProp", "test_rules.py::test_both_spellings_of_rmsprop"),
    ("Adam's second correction uses β₂", "test_rules.py::test_reference_and_backends"),
    ("Adadelta has one decay", "test_optimize.py::test_states_come_in_the_documented_order"),
    ("with γ = 0 no velocity is kept", "test_optimize.py::test_states_come_in_the_documented_order"),
    ("Nesterov's form needs a momentum", "test_bad_input.py::test_what_is_wrong_is_named"),
    ("ShiftAdaMax counts epochs from 1", "test_promises_rules.py::test_shift_adamax_corrects_by_the_epoch"),
    # gradients, batch size, clipping
    ("gradients are sums, divided by be.bsz", "test_optimize.py::test_gradients_are_divided_by_the_batch_size"),
    (
        "be.bsz is a number of samples",
        "test_promises_numbers.py::test_the_batch_size_of_a_backend_of_ones_own_is_checked",
    ),
    (
        "an attached optimizer takes gradients as they are",
        "test_promises_numbers.py::test_an_attached_optimizer_takes_gradients_as_they_are",
    ),
    ("by value: each element into [−|k|, |k|]", "test_rules.py::test_reference_and_backends"),
    ("by norm: over all tensors together", "test_mapping_norms.py::test_norms_by_hand"),
    ("accumulators see the scaled gradient", "test_rules.py::test_reference_and_backends"),
    ("both: the raw norm, then by value", "test_optimize.py::test_the_norm_is_of_the_mean_gradient"),
    ("each optimizer of a mapping by its own norm", "test_mapping_norms.py::test_norms_by_hand"),
    ("the mapping's norm is over all that it holds", "test_mapping_norms.py::test_norms_by_hand"),
    (
        "it covers what is updated by hand, before either is",
        "test_promises_by_hand.py::test_norms_over_both_are_those_of_before_either_was_updated",
    ),
    ("parameters are clipped after the update", "test_promises_rules.py::test_what_acts_when"),
    ("weight decay is added after clipping", "test_promises_rules.py::test_what_acts_when"),
    ("Adam's t counts each tensor's updates", "test_rules.py::test_each_tensor_counts_its_own_updates"),
    ("a velocity holds the rate that it was made with", "test_promises_rules.py::test_a_velocity_holds_the_rate"),
    # layers and the parameter list
    ("nothing is cached by a list's identity", "test_optimize.py::test_a_changed_layer_list_is_seen"),
    ("gradients are never written to", "test_optimize.py::test_gradients_are_never_written"),
    ("lists and containers are flattened", "test_optimize.py::test_lists_containers_and_layers_are_flattened_in_order"),
    (
        "a container's own parameters are updated too",
        "test_promises_layers.py::test_a_container_with_a_parameter_of_its_own_is_updated_whole",
    ),
    ("states are one list each time", "test_optimize.py::test_states_are_one_list_and_parameters_are_aliases"),
    ("states of the caller's are honoured", "test_optimize.py::test_states_of_the_callers_are_used_and_kept"),
    ("of each parameter by itself", "test_promises_layers.py::test_one_list_of_states_for_two_parameters_is_refused"),
    ("states in the documented order", "test_optimize.py::test_states_come_in_the_documented_order"),
    ("get_params() gives a tuple or a list", "test_layers_of_ones_own.py::test_a_torch_module_may_give_neons_tuples"),
    ("without parameters an empty list", "test_layers.py::test_get_params_lists_none_or_several"),
    (
        "neon's layers and torch's modules are layers",
        "test_optimize.py::test_neons_layers_and_torchs_modules_are_layers",
    ),
    ("layers by their documented words", "test_promises_rules.py::test_documented_layers"),
    ("Affine is a Linear, a Bias, an Activation", "test_layers.py::test_affine_is_a_linear_a_bias_and_an_activation"),
    ("the number of inputs is inferred", "test_layers.py::test_shapes_are_inferred_and_gradients_flow"),
    ("AlexNet's parts and recurrent layers are torch's", "test_layers.py::test_values_equal_torchs"),
    # MultiOptimizer
    ("the documented table, to the letter", "test_multioptimizer.py::test_the_documented_table"),
    ("and so the layers move", "test_multioptimizer.py::test_the_documented_mapping_moves_as_printed"),
    ("name > pattern > class > default", "test_multioptimizer.py::test_the_strongest_key_wins"),
    ("the longer of two patterns", "test_multioptimizer.py::test_the_strongest_key_wins"),
    ("a name covers everything below it", "test_multioptimizer.py::test_the_strongest_key_wins"),
    ("`Bias` means every parameter called bias", "test_multioptimizer.py::test_the_strongest_key_wins"),
    (
        "a class key fits base classes, the nearest first",
        "test_layers_of_ones_own.py::test_a_class_key_fits_base_classes_the_nearest_first",
    ),
    ("a missing default is an error", "test_bad_input.py::test_what_is_wrong_is_named"),
    ("attach refuses keys that fit nothing", "test_multioptimizer.py::test_attach_refuses_keys_that_match_nothing"),
    ("optimize warns of them once", "test_multioptimizer.py::test_optimize_warns_once_of_keys_that_match_nothing"),
    ("None leaves layers as they are", "test_multioptimizer.py::test_frozen_layers_have_no_group_and_no_state"),
    ("in layer lists too", "test_promises_layers.py::test_a_frozen_layer_is_not_looked_at"),
    ("optimizers are shared between keys", "test_mapping_norms.py::test_norms_by_hand"),
    ("mappings nest", "test_multioptimizer.py::test_mappings_nest"),
    (
        "tied weights once, by the strongest key",
        "test_multioptimizer.py::test_tied_weights_go_once_by_the_strongest_key",
    ),
    ("with the sum of their gradients", "test_tied_layers.py::test_the_sum_of_gradients_counts_once"),
    ("a tie is an error", "test_multioptimizer.py::test_a_tie_between_different_optimizers_is_an_error"),
    (
        "two Parameters over one memory are refused",
        "test_refused_tensors.py::test_two_parameters_over_one_memory_are_refused_by_name",
    ),
    ("or summed", "test_tied_layers.py::test_modules_tied_by_their_data"),
    (
        "an address says nothing of freed storages",
        "test_refused_tensors.py::test_what_has_no_address_goes_by_object",
    ),
    ("names see through wrappers", "test_wrapped_names.py::test_keys_fit_as_if_nothing_were_wrapped"),
    ("by hand, an optimizer gets the layers", "test_hand_written.py::test_it_gets_the_layers_themselves"),
    ("the table has counts and bytes", "test_multioptimizer.py::test_the_table_counts_parameters_and_bytes_of_state"),
    # schedules
    ("each form, by hand", "test_schedules.py::test_rates_by_hand"),
    ("a function of the epoch alone", "test_schedules.py::test_a_schedule_is_a_function_of_the_epoch_alone"),
    ("a Python float", "test_schedules.py::test_rates_are_plain_floats"),
    ("StepSchedule takes lists alone", "test_schedules.py::test_bad_arguments_are_named"),
    ("an epoch that there is", "test_promises_numbers.py::test_a_schedule_is_asked_for_an_epoch_that_there_is"),
    ("every rule follows its schedule", "test_promises_rules.py::test_every_rule_follows_its_schedule"),
    (
        "steps are the layers' to count",
        "test_schedules.py::test_steps_are_counted_by_the_layers_and_not_by_the_description",
    ),
    ("and are saved with them", "test_parameter_file.py::test_a_schedule_in_steps_goes_on_where_it_was"),
    # custom optimizers
    (
        "written by hand, as documented",
        "test_documented_optimizers.py::test_optimizers_written_by_hand_train_as_neons_do",
    ),
    ("as a rule, with every option", "test_random_rules.py::test_eager_and_numba_give_the_same_bits"),
    ("on every backend", "test_random_rules.py::test_triton_gives_the_same_bits"),
    ("in a MultiOptimizer", "test_documented_optimizers.py::test_rules_in_a_multioptimizer_and_beside_options"),
    (
        "without the base class's constructor",
        "test_promises_by_hand.py::test_a_constructor_need_not_call_that_of_optimizer",
    ),
    # stochastic rounding
    (
        "to a neighbour, right on average, at every width",
        "test_promises_numbers.py::test_what_is_written_is_one_of_two_neighbours_and_right_on_average",
    ),
    (
        "True changes nothing on float32",
        "test_promises_numbers.py::test_true_changes_nothing_where_nothing_is_lost",
    ),
    ("over many steps", "test_layers_of_ones_own.py::test_random_bits_go_on_with_views_made_anew"),
    # bad input
    ("each wrong argument, by name", "test_bad_input.py::test_a_wrong_argument_is_named_with_its_value"),
    ("written later too", "test_promises_numbers.py::test_an_attribute_that_is_spoiled_is_refused_by_name_and_whole"),
    ("numbers that no float holds", "test_promises_numbers.py::test_numbers_that_are_none_are_refused_by_name_at_once"),
    ("wrong mappings", "test_bad_input.py::test_what_is_wrong_is_named"),
    ("sparse and complex, at the first step", "test_refused_steps.py::test_optimize_refuses_the_last_and_touches_none"),
    ("attached too", "test_refused_steps.py::test_an_attached_step_refuses_the_last_and_touches_none"),
    ("what is no layer", "test_promises_layers.py::test_what_is_no_layer_is_named_and_nothing_is_updated"),
    (
        "what is refused by hand leaves the rest",
        "test_promises_by_hand.py::test_what_is_refused_by_hand_leaves_the_others_as_they_were",
    ),
    ("numpy's numbers become Python's", "test_numpy_numbers.py::test_in_constructors"),
    ("torch's defaults reach nothing", "test_torch_defaults.py::test_a_run_is_as_without"),
    ("messages are short: values", "test_bad_input.py::test_messages_stay_short_however_large_the_value_is"),
    ("messages are short: models", "test_unmatched_keys.py::test_messages_are_short_whatever_the_model"),
    ("messages are short: names", "test_promises_messages.py::test_messages_stay_short_whatever_things_are_called"),
    # around the optimizers
    ("gen_backend takes what programs give", "test_backends.py::test_what_a_program_gives"),
    ("Callbacks too", "test_callbacks.py::test_an_eval_set_is_measured"),
]


@cache
def names_in(file: str) -> set[str]:
    """The names of the tests of a file, which is read and not imported."""
    tree = ast.parse((Path(__file__).parent / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize(("promise", "test"), PROMISES, ids=[promise for promise, _ in PROMISES])
def test_each_promise_has_a_test(promise: str, test: str) -> None:
    file, _, name = test.partition("::")
    assert name in names_in(file), f"{promise}: there is no {name} in {file}"


def test_each_promise_is_named_once() -> None:
    named = [promise for promise, _ in PROMISES]
    assert len(named) == len(set(named))
