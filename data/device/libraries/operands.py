# The tensors and contracts that dumps of several libraries share.
import itertools

import torch

SEED = 20261206
F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32
HEADS, KV_HEADS, WIDTH = 4, 2, 64
SCALE = WIDTH**-0.5
CAUSAL, NONE = dict(causal="bottom_right"), dict(causal="none")
# Triton's kernels cast weights relative to the running maximum to the type of v, and add them up before.
TRITON = dict(weights="relative", matrix_unit="hopper")
TF32 = dict(matrix_unit="tf32", weights="relative")  # what tl.dot makes of float32 unless told otherwise
NORM_SHAPES = [(5, 260), (5, 260), 260, 260]  # x, dy, weight, bias
SINKS = [1.0, 3.1, 5.3, 6.9]  # the largest weigh more than all keys together


def normals(dtype, *shapes):
    """The same tensors for the same arguments: what cases share is stored once."""
    generator = torch.Generator().manual_seed(SEED)
    return [torch.randn(shape, generator=generator).cuda().to(dtype) for shape in shapes]


def label(dtype):
    return str(dtype).removeprefix("torch.")


class Packed:
    """Sequences one after the other, q[Tq, Hq, D] k[Tk, Hkv, D] v[Tk, Hkv, D]; lengths: queries and keys of each."""

    def __init__(self, dtype, lengths, heads=HEADS, kv_heads=KV_HEADS, q_times=1):
        self.rows, self.keys = zip(*lengths)
        self.ends_q, self.ends_k = ([0, *itertools.accumulate(n)] for n in (self.rows, self.keys))
        rows, keys = (self.ends_q[-1], heads, WIDTH), (self.ends_k[-1], kv_heads, WIDTH)
        self.k, self.v, self.q, self.do = normals(dtype, keys, keys, rows, rows)
        self.q *= q_times
        self.cu_q, self.cu_k, self.n_q, self.n_k = map(integers, (self.ends_q, self.ends_k, self.rows, self.keys))

    def old_and_new(self, x):
        """Rows of k or v that stand before those of the queries, and those of the queries themselves."""
        parts = (x[end - n:end].split([n - rows, rows]) for end, n, rows in zip(self.ends_k[1:], self.keys, self.rows))
        return [torch.cat(side) for side in zip(*parts)]

    def pages(self, size):
        """Caches [pages, size, Hkv, D] in reverse order, NaN where no key is, and the pages of each sequence.

        The last are more than needed, because kernels read numbers of pages beyond the keys."""
        counts = [-(-keys // size) for keys in self.keys]
        caches = [x.new_full((sum(counts), size, *x.shape[1:]), float("nan")) for x in (self.k, self.v)]
        table, page = torch.zeros(len(counts), max(counts) + 8, dtype=torch.int32), sum(counts)
        for n, end in enumerate(self.ends_k[1:]):
            for i, start in enumerate(range(self.ends_k[n], end, size)):
                page -= 1
                table[n, i] = page
                for cache, x in zip(caches, (self.k, self.v)):
                    cache[page, :min(size, end - start)] = x[start:min(start + size, end)]
        return *caches, table.cuda()

    def case(self, name, contract, o, spec=(), lse=None, named=None, **inputs):
        outputs = dict(o=o) if lse is None else dict(o=o, lse=lse)
        return dict(name=name, op="attention", spec=dict(CAUSAL, layout="thd", scale=SCALE) | dict(spec),
                    contract=contract, outputs=outputs, about=dict(named=named) if named else {},
                    inputs=dict(q=self.q, k=self.k, v=self.v, cu_seqlens_q=self.cu_q, cu_seqlens_k=self.cu_k, **inputs))


def integers(values):
    return torch.tensor(values, dtype=torch.int32).cuda()
