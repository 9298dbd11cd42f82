import os
import tempfile
import unittest

import kernel_trace


class TraceTest(unittest.TestCase):
    def write(self, events):
        handle, path = tempfile.mkstemp()
        self.addCleanup(os.unlink, path)
        with os.fdopen(handle, "w") as file:
            file.writelines(f"{start} {end} {name}\n" for start, end, name in events)
        return path

    def decode_steps(self, count, gap=30_000):
        events, now = [], 1_000_000
        for _ in range(count):
            events.append((now + 1_000, now + 2_000, "copy_in"))
            now += gap
            for name in ("void embed_rows<bf16>", "stream_mma", "sample"):
                events.append((now, now + 100_000, name))
                now += 110_000
            now -= 10_000
        return events

    def test_the_gap_is_from_the_last_kernel_to_the_next_embedding(self):
        row = kernel_trace.summary(self.write(self.decode_steps(40)))
        self.assertEqual(row["kernels_per_step"], 3)
        self.assertEqual(row["gap_p50_us"], 30.0)
        self.assertEqual(row["step_p50_us"], 320.0)
        self.assertEqual(row["busy_p50_us"], 300.0)

    def test_prefill_steps_and_order_of_lines_do_not_count(self):
        events = self.decode_steps(40)
        prompt = [(0, 10, "embed_rows"), (20, 500_000, "tile_mma")]
        row = kernel_trace.summary(self.write(list(reversed(prompt + events))))
        self.assertEqual((row["kernels_per_step"], row["gap_p50_us"]), (3, 30.0))

    def test_kernels_that_overlap_leave_no_gap(self):
        self.assertEqual(kernel_trace.covered([(0, 10, "a"), (5, 20, "b"), (30, 40, "c")]), 30)
        overlapping = [(i * 100, i * 100 + 150, "embed" if i % 2 == 0 else "b") for i in range(100)]
        self.assertEqual(kernel_trace.summary(self.write(overlapping))["gap_p50_us"], 0.0)

    def test_too_few_steps_are_no_result(self):
        self.assertIsNone(kernel_trace.summary(self.write(self.decode_steps(10))))
        self.assertIsNone(kernel_trace.summary("/no/such/file"))


if __name__ == "__main__":
    unittest.main()
