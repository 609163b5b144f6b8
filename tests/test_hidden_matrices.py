"""Which parameters of whole models are hidden matrices, and what rules of matrices refuse to update."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from matrix_rules import Shaped, Whole, fill_gradients, matrices, taken_for
from torch import Tensor, nn

import neon.torch
from neon.assignment.roles import with_roles
from neon.assignment.sites import module_sites
from neon.optimizers import Adam, AdamW, Matrices, MultiOptimizer, Muon, Optimizer

ONE_LINE = 'MultiOptimizer({"default": AdamW(), "HiddenMatrix": Muon()}) over the whole model'


def whole_model(*, parts: Any = None, **others: Optimizer | None) -> MultiOptimizer:
    return MultiOptimizer({"default": AdamW(), "HiddenMatrix": Muon(parts=parts)} | others)


class Conv1D(nn.Module):
    """As transformers has it: (in x out)."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(inputs, outputs)), nn.Parameter(torch.ones(outputs))


class Gpt(nn.Module):
    """The parameters of GPT-2: blocks of width 16 for a vocabulary of 50, 16 positions (as many as it is wide)."""

    def __init__(self, *, tied: bool = True, blocks: int = 2, width: int = 16) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(50, width), nn.Embedding(16, width)
        self.h = nn.ModuleList(
            nn.ModuleDict({
                "ln_1": nn.LayerNorm(width), "c_attn": Conv1D(3 * width, width), "c_proj": Conv1D(width, width),
                "mlp": nn.ModuleDict({"c_fc": Conv1D(4 * width, width), "c_proj": Conv1D(width, 4 * width)}),
            })
            for _ in range(blocks)
        )  # fmt: skip
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, 50, bias=False)
        if tied:
            self.lm_head.weight = self.wte.weight


def llama(*, tied: bool = False) -> nn.Module:
    """The parameters of Llama, with keys and values that four heads share in one weight with the queries."""
    net, inner = nn.Module(), nn.Module()
    inner.embed_tokens = nn.Embedding(50, 32)
    inner.layers = nn.ModuleList()
    for _ in range(3):
        layer, attention, mlp = nn.Module(), nn.Module(), nn.Module()
        attention.qkv_proj, attention.o_proj = nn.Linear(32, 48, bias=False), nn.Linear(32, 32, bias=False)
        mlp.gate_up, mlp.down_proj = nn.Linear(32, 128, bias=False), nn.Linear(64, 32, bias=False)
        layer.self_attn, layer.mlp, layer.norm = attention, mlp, nn.RMSNorm(32)
        inner.layers.append(layer)
    net.model, net.lm_head = inner, nn.Linear(32, 50, bias=False)
    if tied:
        net.lm_head.weight = inner.embed_tokens.weight
    return net


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.ones(4, 12, 6))
        self.router = nn.Linear(6, 4, bias=False)


def roles(net: nn.Module) -> dict[str, tuple[str, str]]:
    return {site.names[0]: (site.role.key, site.role.said) for site in with_roles(module_sites(net)) if site.names}


def hidden(net: nn.Module) -> list[str]:
    return [name for name, (key, _) in roles(net).items() if key == "HiddenMatrix"]


def heads(net: nn.Module) -> dict[str, str]:
    return {name: said for name, (key, said) in roles(net).items() if key == "OutputHead"}


# -- whole models ------------------------------------------------------------------------------------


def test_gpt2() -> None:
    net = Gpt()
    optimizer = whole_model(parts={"*.c_attn": 3}).attach(net)
    found = matrices(optimizer)
    assert found == {
        f"h.{i}.{layer}.weight": Matrices(3, dim=1, inputs_first=True)
        if layer == "c_attn"
        else Matrices(inputs_first=True)
        for i in range(2)
        for layer in ("c_attn", "c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    assert roles(net)["wte.weight"] == ("", "embedding")
    assert heads(net) == {"lm_head.weight": "output head (tied to an embedding)"}


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_a_head_is_found_whether_it_is_tied_or_not(blocks: int) -> None:
    for tied in (True, False):
        net = Gpt(tied=tied, blocks=blocks, width=24)
        assert len(hidden(net)) == 4 * blocks
        assert [*heads(net)] == ["lm_head.weight"]


def test_layers_as_wide_as_there_are_positions_are_no_heads() -> None:
    """As in GPT-2 medium, with 1024 of both."""
    net = Gpt(blocks=3, width=16)
    assert len(hidden(net)) == 12


def test_transformers_gpt2_and_llama() -> None:
    transformers = pytest.importorskip("transformers")
    small = {"vocab_size": 60, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=8, n_layer=2, n_head=2, n_positions=8, **small))
    found = matrices(whole_model(parts={"*.c_attn": 6}).attach(gpt2))
    assert found["transformer.h.0.attn.c_attn.weight"] == Matrices(6, dim=1, inputs_first=True)
    assert found["transformer.h.1.mlp.c_proj.weight"] == Matrices(inputs_first=True)
    assert len(found) == 8
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(num_key_value_heads=2, **sizes, **small)
    causal = transformers.LlamaForCausalLM(config)
    assert len(matrices(whole_model().attach(causal))) == 14
    assert heads(causal) == {"lm_head.weight": "output head (as wide as a vocabulary)"}
    assert heads(transformers.LlamaModel(config)) == {}
    classes = transformers.LlamaForSequenceClassification(config)
    assert heads(classes) == {"score.weight": "output head (by its name)"}


def test_llama_with_shared_keys_and_values() -> None:
    optimizer = whole_model(parts={"*.qkv_proj": (32, 8, 8), "*.gate_up": 2}).attach(llama())
    found = matrices(optimizer)
    assert len(found) == 12
    assert found["model.layers.1.self_attn.qkv_proj.weight"] == Matrices((32, 8, 8))
    assert found["model.layers.2.mlp.gate_up.weight"] == Matrices(2)
    assert heads(llama(tied=True)) == {"lm_head.weight": "output head (tied to an embedding)"}


def test_a_net_of_convolutions() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 3, groups=2),
        nn.ConvTranspose2d(16, 8, 3), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    found = matrices(whole_model().attach(net))
    one = {"0.weight": Matrices(), "3.weight": Matrices(2), "4.weight": Matrices(inputs_first=True)}
    assert found == one
    assert found["4.weight"].shapes((16, 8, 3, 3)) == [(1, 72, 16)]
    assert roles(net)["2.weight"] == ("", "a vector")  # each filter is
    assert heads(net) == {"6.weight": "output head (the last layer)"}


def test_a_net_that_ends_in_a_convolution() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1))
    assert heads(net) == {"1.weight": "output head (the last layer)"}


def test_layers_of_torch_that_hold_several_matrices() -> None:
    net = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2), "lstm": nn.LSTM(8, 6, proj_size=3),
                         "gru": nn.GRU(4, 6), "rnn": nn.RNN(4, 6), "cell": nn.LSTMCell(4, 6),
                         "apart": nn.MultiheadAttention(8, 2, kdim=4, vdim=4, add_bias_kv=True),
                         "pairs": nn.Bilinear(3, 4, 5)})  # fmt: skip
    assert matrices(whole_model().attach(net)) == {
        "attention.in_proj_weight": Matrices(3),
        "attention.out_proj.weight": Matrices(),
        "lstm.weight_ih_l0": Matrices(4),
        "lstm.weight_hh_l0": Matrices(4),
        "lstm.weight_hr_l0": Matrices(),
        "gru.weight_ih_l0": Matrices(3),
        "gru.weight_hh_l0": Matrices(3),
        "rnn.weight_ih_l0": Matrices(),
        "rnn.weight_hh_l0": Matrices(),
        "cell.weight_ih": Matrices(4),
        "cell.weight_hh": Matrices(4),
        "apart.q_proj_weight": Matrices(),
        "apart.k_proj_weight": Matrices(),
        "apart.v_proj_weight": Matrices(),
        "apart.out_proj.weight": Matrices(),
        "pairs.weight": Matrices(stacked=True),
    }
    assert heads(net) == {}


def test_a_name_that_says_it_is_enough_for_attention() -> None:
    attention = nn.TransformerEncoderLayer(8, 2, 16)
    named = [(name, param) for name, param in attention.named_parameters() if param.dim() > 1]
    found = matrices(Muon().attach(named))
    assert found["self_attn.in_proj_weight"] == Matrices(3)
    assert found["linear1.weight"] == Matrices()


def test_what_is_given_for_a_layer_goes_before_what_it_says_itself() -> None:
    net = nn.Sequential(nn.MultiheadAttention(8, 2), nn.Linear(8, 2))
    assert matrices(whole_model(parts={"0.in_proj_weight": 12}).attach(net))["0.in_proj_weight"] == Matrices(12)
    whole = matrices(whole_model(parts={"0.in_proj_weight": Matrices()}).attach(net))
    assert whole["0.in_proj_weight"] == Matrices()


def test_a_multilayer_perceptron() -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1), nn.PReLU())
    assert hidden(net) == ["0.weight", "2.weight"]
    assert heads(net) == {"4.weight": "output head (the last layer)"}  # also where it gives one number
    same = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    assert heads(same) == {"2.weight": "output head (the last layer)"}


@pytest.mark.parametrize("name", ["head", "lm_head", "classifier", "score", "logits", "value_head"])
def test_heads_by_their_names(name: str) -> None:
    """The last layer below the name; it need not be the last of the model."""
    net = nn.Module()
    setattr(net, name, nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4)))
    net.body = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    assert heads(net) == {f"{name}.2.weight": "output head (by its name)"}
    blocks = nn.Sequential(*(copy.deepcopy(net) for _ in range(2)))
    assert heads(blocks) == {}


def test_experts_are_matrices_where_it_is_said() -> None:
    """Parameters of unknown layers are left to the other rule: the table says so."""
    net = nn.Sequential(nn.Linear(6, 6), Experts(), nn.Linear(6, 3))
    optimizer = whole_model().attach(net)
    assert matrices(optimizer) == {"0.weight": Matrices(), "1.router.weight": Matrices()}
    assert "of no known layer" in optimizer.table()
    rule = Muon(parts={"1.gate_up": Matrices(2, stacked=True)})
    named = MultiOptimizer({"default": AdamW(), "HiddenMatrix": rule, "1.gate_up": rule}).attach(net)
    assert matrices(named)["1.gate_up"].shapes((4, 12, 6)) == [(8, 6, 6)]
    with pytest.raises(ValueError, match=r"Muon: no parameter of its own fits the key '1\.gate_up' of parts"):
        whole_model(parts={"1.gate_up": 2}).attach(net)


def test_keys_of_names_go_before_roles() -> None:
    net = nn.Sequential()
    net.patch_embed, net.body, net.lm_head = nn.Conv2d(3, 4, 2), nn.Linear(4, 4), nn.Linear(4, 5)
    rule = Muon()
    keys = {"default": AdamW(), "HiddenMatrix": rule, "lm_head.weight": rule, "patch_embed": AdamW()}
    assert [*matrices(MultiOptimizer(keys).attach(net))] == ["body.weight", "lm_head.weight"]


def test_a_head_is_a_key_too() -> None:
    net = Gpt(tied=False)
    optimizer = whole_model(OutputHead=Adam(learning_rate=0.5)).attach(net)
    (group,) = (group for group in optimizer.param_groups if group["optimizer"] == "OutputHead")
    assert group["param_names"] == ["lm_head.weight"]
    plain = Adam().attach(net)
    plain.set("lr_scale", 0.1, layers="OutputHead")
    assert "lm_head" in [row.split()[0] for row in plain.table().splitlines() if "lr_scale=0.1" in row]
    frozen = MultiOptimizer({"default": AdamW(), "HiddenMatrix": None}).attach(Gpt())
    assert not [name for name in frozen.param_groups[0]["param_names"] if ".c_" in name and "weight" in name]


def test_it_is_one_optimizer_of_torchs() -> None:
    net = Gpt()
    optimizer = whole_model().attach(net)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    fill_gradients(net)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.0005, 0.0005]
    other = whole_model().attach(copy.deepcopy(net))
    other.load_state_dict(optimizer.state_dict())
    assert [group["lr"] for group in other.param_groups] == [0.0005, 0.0005]
    assert isinstance(optimizer, torch.optim.Optimizer)


def test_wrappers_do_not_hide_what_layers_are() -> None:
    net = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 8), nn.Linear(8, 9))
    for wrapped in (torch.compile(net, backend="eager"), nn.DataParallel(net)):
        assert [*matrices(whole_model().attach(wrapped))] == ["1.weight"]


def test_in_layer_lists() -> None:
    net = Gpt(tied=False)
    fill_gradients(net)
    optimizer = whole_model(HiddenMatrix=Whole(lr=0.0, parts={"*.c_attn": 3}))
    before = {name: param.detach().clone() for name, param in net.named_parameters()}
    optimizer.optimize(net, 0)
    assert {name for name, param in net.named_parameters() if torch.equal(before[name], param)} == {*hidden(net)}
    table = optimizer.table(net)
    assert "3 of 16x16, scale 0" in table
    assert "output head (as wide as a vocabulary)" in table


def test_the_table_says_what_each_is() -> None:
    table = whole_model(parts={"*.c_attn": 3}).attach(Gpt(blocks=3)).table()
    rows = [line.split() for line in table.splitlines()]
    assert rows[0][-1] == "matrices"
    said = {row[0]: " ".join(row[-6:]) for row in rows[2:]}
    assert said["wte"].endswith("embedding")
    blocks = [line for line in table.splitlines() if line.startswith("h.0 … h.2")]
    assert [re.split("  +", line)[-1] for line in blocks if ".weight" in line] == [
        "3 of 16x16, scale 1", "16x16, scale 1", "64x16, scale 2", "16x64, scale 1",
    ]  # fmt: skip


# -- what is refused ---------------------------------------------------------------------------------


def test_vectors_are_refused_by_name() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    message = "Muon updates matrices, and these parameters are none: 0.bias, 1.weight, 1.bias. " + re.escape(
        f"Give them another rule: {ONE_LINE}"
    )
    targets: list[Callable[[], Any]] = [
        lambda: Muon().attach(net),
        lambda: Muon().attach(net.named_parameters()),
        lambda: MultiOptimizer({"default": Muon()}).attach(net),
        lambda: MultiOptimizer({"default": Muon()}).attach(net.named_parameters()),
        lambda: Muon().attach(net, in_backward=True),
    ]
    for attach in targets:
        with pytest.raises(ValueError, match=message):
            attach()
    with pytest.raises(ValueError, match=r"these parameters are none: params\[1\] of 'default', params\[2\]"):
        Muon().attach(net.parameters())
    with pytest.raises(ValueError, match=r"Muon updates matrices, and these parameters are none: 0\.bias"):
        neon.torch.Muon(net.named_parameters())
    with pytest.raises(ValueError, match=r"Muon updates matrices, .*: params\[1\] of 'default'"):
        neon.torch.Muon(net.parameters())


@pytest.mark.parametrize("layer", [nn.Embedding(9, 4), nn.EmbeddingBag(9, 4), type("Mine", (nn.Embedding,), {})(9, 4)])
def test_embeddings_are_refused_unless_they_are_named(layer: nn.Module) -> None:
    net = nn.ModuleDict({"inner": nn.ModuleDict({"tokens": layer, "body": nn.Linear(4, 4, bias=False)})})
    message = r"Muon is for hidden matrices, and these are not: inner.tokens.weight \(embedding\). Give them another"
    for keys in ({"default": Muon()}, {"default": AdamW(), "inner": Muon()}, {"default": AdamW(), "i*r": Muon()}):
        with pytest.raises(ValueError, match=message):
            MultiOptimizer(keys).attach(net)
    with pytest.raises(ValueError, match=message):
        Muon().attach(net)
    for key in ("inner.tokens", "inner.tokens.weight", "*.tokens", type(layer).__name__):
        assert "inner.tokens.weight" in matrices(MultiOptimizer({"default": AdamW(), key: Muon()}).attach(net))


@pytest.mark.parametrize("tied", [True, False])
def test_heads_are_refused_unless_they_are_named(tied: bool) -> None:
    net = llama(tied=tied)
    name, said = ("model.embed_tokens.weight", "embedding") if tied else ("lm_head.weight", "output head .as wide as")
    keys = {"default": AdamW(), "Linear": Muon()}
    with pytest.raises(ValueError, match=rf"these are not: {name} \({said}"):
        MultiOptimizer(keys).attach(net)
    for key in ("lm_head", "lm_head.weight", "*_head", "OutputHead"):
        assert name in matrices(MultiOptimizer({**keys, key: Muon()}).attach(net))


def test_what_may_be_a_head_is_left_to_the_user() -> None:
    """Of a few layers alone the last is no head: where nothing but the order says so, a plain rule takes it."""
    net = nn.Sequential(nn.Linear(4, 8, bias=False), nn.Linear(8, 4, bias=False))
    assert [*matrices(Muon().attach(net))] == ["0.weight", "1.weight"]


def test_roles_are_known_of_modules_alone() -> None:
    with pytest.raises(ValueError, match=r"no layer fits the key 'HiddenMatrix'.*attach the model itself"):
        whole_model().attach(Gpt().named_parameters())
    groups = [{"params": [torch.ones(2, 2, requires_grad=True)], "optimizer": "HiddenMatrix"},
              {"params": [torch.ones(2, requires_grad=True)]}]  # fmt: skip
    assert [name for name, own in taken_for(whole_model().attach(groups)).items() if own] == [
        "params[0] of 'HiddenMatrix'"
    ]


def test_rules_with_a_step_for_vectors_refuse_nothing() -> None:
    net = Gpt()
    optimizer = Shaped(parts={"*.c_attn.weight": 3}).attach(net)
    assert matrices(optimizer)["h.0.c_attn.weight"] == Matrices(3, dim=1, inputs_first=True)
    row = next(row for row in optimizer.table(full=True).splitlines() if row.startswith("h.0.c_attn.weight"))
    assert row.endswith("3 of 16x16, scale 1")
    Shaped(parts={"*.c_attn": 3}).optimize(net, 0)


def test_plain_rules_take_everything() -> None:
    net = Gpt()
    assert {*taken_for(Adam().attach(net)).values()} == {None}
    assert "matrices" not in MultiOptimizer({"default": Adam(), "Linear": AdamW()}).attach(net).table()


def test_lists_of_layers_refuse_the_same() -> None:
    net = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9, bias=False))
    fill_gradients(net)
    before: list[Tensor] = [param.detach().clone() for param in net.parameters()]
    with pytest.raises(ValueError, match=r"these are not: 0.weight \(embedding\), 1.weight \(output head"):
        Muon().optimize(net, 0)
    assert all(torch.equal(param, own) for param, own in zip(net.parameters(), before, strict=True))
