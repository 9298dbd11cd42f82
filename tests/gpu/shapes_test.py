import json
import os
import tempfile
import unittest

from shapes import Shape, largest_static_batch, read_shape, roofline_seconds, step_seconds

LLAMA3_8B = Shape(32, 4096, 14336, 32, 8, 128256)
LLAMA_7B = Shape(32, 4096, 11008, 32, 32, 32000)
LLAMA_13B = Shape(40, 5120, 13824, 40, 40, 32000)
H100 = (3.35e12, 989e12)


class ShapesTest(unittest.TestCase):
    def test_known_models_have_their_sizes(self):
        self.assertAlmostEqual(LLAMA_7B.parameters / 1e9, 6.61, places=2)
        self.assertAlmostEqual(LLAMA_13B.parameters / 1e9, 12.85, places=2)
        self.assertAlmostEqual(LLAMA3_8B.parameters / 1e9, 7.50, places=2)
        self.assertEqual(LLAMA_7B.kv_bytes, 512 * 1024)
        self.assertEqual(LLAMA_13B.kv_bytes, 800 * 1024)
        self.assertEqual(LLAMA3_8B.kv_bytes, 128 * 1024)

    def test_the_roofline_of_one_stream(self):
        self.assertAlmostEqual(1 / step_seconds(LLAMA3_8B, [512], H100), 222, delta=1)
        self.assertAlmostEqual(64 / step_seconds(LLAMA3_8B, [1024] * 64, H100), 9089, delta=60)
        self.assertAlmostEqual(2048 / (LLAMA3_8B.prefill_flops(2048) / H100[1]), 65900, delta=5000)

    def test_paging_is_never_slower_than_static_batches(self):
        load = [(30 + 7 * i % 200, 20 + 13 * i % 300) for i in range(24)]
        paged = roofline_seconds(LLAMA_7B, load, H100)
        one = roofline_seconds(LLAMA_7B, load, H100, 1)
        eight = roofline_seconds(LLAMA_7B, load, H100, 8)
        self.assertLess(paged, eight)
        self.assertLess(eight, one)
        # Of one request both are the same.
        self.assertAlmostEqual(roofline_seconds(LLAMA_7B, load[:1], H100),
                               roofline_seconds(LLAMA_7B, load[:1], H100, 1))

    def test_the_static_batch_that_fits(self):
        load = [(1024, 100), (8, 512)] * 32
        rows = largest_static_batch(LLAMA_7B, load, 24)
        used = rows * 1536 * LLAMA_7B.kv_bytes + LLAMA_7B.weight_bytes
        self.assertLess(used, 24e9)
        self.assertGreater(used + 2 * 1536 * LLAMA_7B.kv_bytes + 1.3e9, 24e9)
        self.assertEqual(largest_static_batch(LLAMA_7B, load, 10), 1)
        self.assertEqual(largest_static_batch(LLAMA_7B, load[:2], 80), 2)

    def test_a_config_is_read(self):
        handle, path = tempfile.mkstemp()
        self.addCleanup(os.unlink, path)
        with os.fdopen(handle, "w") as file:
            json.dump({"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4,
                       "vocab_size": 512}, file)
        self.assertEqual(read_shape(path), Shape(2, 64, 128, 4, 4, 512))


if __name__ == "__main__":
    unittest.main()
