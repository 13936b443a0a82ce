#!/usr/bin/env python3
"""Writes reference.json: what a tiny BitNet b1.58 model answers, in double precision.

The weights follow from their names (tests/support/bitnet_checkpoint.cc makes the same), so that no
checkpoint need be stored. The arithmetic is the model's definition, as Hugging Face's BitNet classes
have it: every projection sees its input rounded to 8 bits a token, and weights of -1, 0 and 1 times one
scale; squared ReLU; a norm before each block's last projection; rotary halves; a tied head.

Rounding to 8 bits makes a step of what comes near the middle between two numbers, on which side of it
single precision may fall; tokens are chosen so that nothing does.
"""
import json
import math

CONFIG = {
    "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "vocab_size": 280,
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0, "hidden_act": "relu2", "tie_word_embeddings": True,
    "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
                            "quantization_mode": "offline"},
}
TOKEN_COUNT = 12
MARGIN = 5e-4  # from the middle between two numbers of 8 bits, in their unit
HIDDEN, FFN, HEADS, KV_HEADS = 256, 512, 4, 2
HEAD = HIDDEN // HEADS


def fnv(name):
    h = 2166136261
    for byte in name.encode():
        h = ((h ^ byte) * 16777619) & 0xffffffff
    return h


def words(name):
    state = fnv(name)
    while True:
        state = (state * 1664525 + 1013904223) & 0xffffffff
        yield state >> 8


def rows(name, count, columns, value):
    stream = words(name)
    return [[value(next(stream)) for _ in range(columns)] for _ in range(count)]


def vector(name, size):
    stream = words(name)
    return [1.0 + (next(stream) % 17 - 8) / 64.0 for _ in range(size)]


def packed_projection(name, count, columns):
    scale = 0.0625 * (1.0 + fnv(name) % 4 / 4.0)
    return rows(name, count, columns, lambda word: word % 3 - 1), scale


def online_projection(name, count, columns):
    raw = rows(name, count, columns, lambda word: (word % 255 - 127) / 1024.0)
    scale = max(sum(abs(w) for row in raw for w in row) / (count * columns), 1e-5)
    return [[max(-1, min(1, round(w / scale))) for w in row] for row in raw], scale


def rms_norm(x, weight):
    scale = 1.0 / math.sqrt(sum(v * v for v in x) / len(x) + CONFIG["rms_norm_eps"])
    return [v * scale * w for v, w in zip(x, weight)]


nearest_tie = 1.0


def rounded(x):
    global nearest_tie
    scale = 127.0 / max(max(abs(v) for v in x), 1e-5)
    nearest_tie = min(nearest_tie, min(abs(abs(v * scale) % 1.0 - 0.5) for v in x))
    return [max(-128, min(127, round(v * scale))) / scale for v in x]


def project(weight, x):
    codes, scale = weight
    x = rounded(x)
    return [scale * sum(c * v for c, v in zip(row, x)) for row in codes]


def rotate(x, position):
    out = list(x)
    for i in range(HEAD // 2):
        angle = position * CONFIG["rope_theta"] ** (-2.0 * i / HEAD)
        a, b = x[i], x[i + HEAD // 2]
        out[i] = a * math.cos(angle) - b * math.sin(angle)
        out[i + HEAD // 2] = a * math.sin(angle) + b * math.cos(angle)
    return out


class Layer:
    def __init__(self, number, make):
        p = f"model.layers.{number}."
        self.norms = [vector(p + n + ".weight", s) for n, s in (
            ("input_layernorm", HIDDEN), ("self_attn.attn_sub_norm", HIDDEN),
            ("post_attention_layernorm", HIDDEN), ("mlp.ffn_sub_norm", FFN))]
        self.q = make(p + "self_attn.q_proj.weight", HIDDEN, HIDDEN)
        self.k = make(p + "self_attn.k_proj.weight", KV_HEADS * HEAD, HIDDEN)
        self.v = make(p + "self_attn.v_proj.weight", KV_HEADS * HEAD, HIDDEN)
        self.o = make(p + "self_attn.o_proj.weight", HIDDEN, HIDDEN)
        self.gate = make(p + "mlp.gate_proj.weight", FFN, HIDDEN)
        self.up = make(p + "mlp.up_proj.weight", FFN, HIDDEN)
        self.down = make(p + "mlp.down_proj.weight", HIDDEN, FFN)
        self.cache = []

    def attend(self, x, position):
        x = rms_norm(x, self.norms[0])
        q, k, v = (project(w, x) for w in (self.q, self.k, self.v))
        self.cache.append(([rotate(k[h * HEAD:][:HEAD], position) for h in range(KV_HEADS)],
                           [v[h * HEAD:][:HEAD] for h in range(KV_HEADS)]))
        out = []
        for h in range(HEADS):
            query = rotate(q[h * HEAD:][:HEAD], position)
            shared = h // (HEADS // KV_HEADS)
            scores = [sum(a * b for a, b in zip(query, keys[shared])) / math.sqrt(HEAD)
                      for keys, _ in self.cache]
            largest = max(scores)
            weights = [math.exp(s - largest) for s in scores]
            total = sum(weights)
            out += [sum(w * values[shared][i] for w, (_, values) in zip(weights, self.cache)) / total
                    for i in range(HEAD)]
        return project(self.o, rms_norm(out, self.norms[1]))

    def feed_forward(self, x):
        x = rms_norm(x, self.norms[2])
        gate, up = project(self.gate, x), project(self.up, x)
        inner = [max(g, 0.0) ** 2 * u for g, u in zip(gate, up)]
        return project(self.down, rms_norm(inner, self.norms[3]))


def log_probabilities(make):
    embedding = rows("model.embed_tokens.weight", CONFIG["vocab_size"], HIDDEN,
                     lambda word: (word % 127 - 63) / 256.0)
    norm = vector("model.norm.weight", HIDDEN)
    layers = [Layer(i, make) for i in range(CONFIG["num_hidden_layers"])]
    tokens, answers = [], []
    for token in (word % CONFIG["vocab_size"] for word in words("tokens")):
        global nearest_tie
        nearest_tie = 1.0
        x = embedding[token]
        for layer in layers:
            x = [a + b for a, b in zip(x, layer.attend(x, len(tokens)))]
            x = [a + b for a, b in zip(x, layer.feed_forward(x))]
        if nearest_tie < MARGIN:
            for layer in layers:
                layer.cache.pop()
            continue
        x = rms_norm(x, norm)
        logits = [sum(a * b for a, b in zip(row, x)) for row in embedding]
        largest = max(logits)
        total = largest + math.log(sum(math.exp(v - largest) for v in logits))
        tokens.append(token)
        answers.append([round(v - total, 5) for v in logits])
        if len(tokens) == TOKEN_COUNT:
            return {"tokens": tokens, "logprobs": answers}


def main():
    with open("reference.json", "w") as file:
        json.dump({"config": CONFIG,
                   "offline": log_probabilities(packed_projection),
                   "online": log_probabilities(online_projection)}, file, separators=(",", ":"))
        file.write("\n")


main()
