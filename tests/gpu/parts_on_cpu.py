"""The steps of run.sh that need no GPU of their own, on the CPU backend with this build's programs: small
models on several ranks, a rank that is killed, and a server of random weights with a measured load. What
is shown is that the steps work, so that time on a lent machine is not spent on that."""

import json
import os
import sys
import tempfile

BINARIES = os.environ.get("QUIRE_BINARY_DIR", "")
DATA = os.environ.get("QUIRE_TEST_DATA") or os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "../../../shared")

TINY = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512, "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2}


def make_bundle(folder):
    for name in ("data/models", "models/tiny", "bin"):
        os.makedirs(os.path.join(folder, name))
    for name in os.listdir(os.path.join(BINARIES, "bin")):
        os.symlink(os.path.join(BINARIES, "bin", name), os.path.join(folder, "bin", name))
    for name in ("stories260K", "tiny-random"):
        os.symlink(os.path.abspath(os.path.join(DATA, "data/models", name)), os.path.join(folder, "data/models", name))
    with open(os.path.join(folder, "models/tiny/config.json"), "w", encoding="utf-8") as file:
        json.dump(TINY, file)


def main():
    if not os.path.exists(os.path.join(DATA, "data/models/stories260K/hf/golden.json")):
        print(f"no test data in {DATA}")
        sys.exit(1 if os.environ.get("QUIRE_REQUIRE_TEST_DATA") == "1" else 77)
    with tempfile.TemporaryDirectory() as folder:
        make_bundle(folder)
        os.environ["QUIRE_GPU_BUNDLE"] = folder
        import ranks  # after the environment: machine.py reads it
        import serving
        from results import Results
        from steps import Part

        part = Part("on the CPU", Results([folder], "a CPU", "today"), "this build")
        try:
            part.step("goldens, 1 rank", ranks.golden_step("stories260K", 1, "cpu"))
            part.step("goldens, 2 ranks", ranks.golden_step("rope3", 2, "cpu"))
            part.step("kill a rank of 2", ranks.kill_step(2, "cpu"))
            if os.path.exists(os.path.join(folder, "bin/bench_serve")):
                dummy = serving.DummyServer(part, "tiny", "cpu", max_num_seqs=16, max_model_len=1536, budget=512)
                peaks = (40e9, 1e12)
                part.step("one stream", serving.decode_alone(dummy, "a CPU", peaks))
                part.step("offline", serving.offline(dummy, "a CPU", (16, 8), 8, 1))
                part.step("prefill", serving.prefill(dummy, peaks, 64, 2))
                load, path = serving.seed_load(part, dummy, 6, 1)
                ours = part.step("seed, ours", serving.seed_ours(dummy, path, 6, 1))
                hf = [{"bench": "hf_generate", "batch": 1, "requests": 6, "out_tok_s": 1.0}]
                ratio = part.step("seed, ratio", serving.seed_ratio(dummy, load, peaks, ours, hf, 24))
                if ratio and not (ratio[0]["roofline_ratio"] > 1 and ratio[0]["ratio"] == ours[0]["out_tok_s"]):
                    part.failed.append(f"ratio: {ratio}")
            else:
                print("no bench_serve in this build (QUIRE_BENCH=OFF): nothing is served under load")
        finally:
            part.end_children()
            part.end_kept()
        if part.failed:
            with open(part.results.path, encoding="utf-8") as file:
                print(file.read())
        print(f"failed: {part.failed}" if part.failed else "all steps passed")
        sys.exit(1 if part.failed else 0)


if __name__ == "__main__":
    main()
