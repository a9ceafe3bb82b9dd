// What is said of kernels that read rows of masks, biases, q, K or V at other places than their own.
#include <cmath>
#include <functional>

#include "tests/catch.hpp"
#include "tests/emulate/honest_attention.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/packed.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

constexpr Index rows = 32, keys = 100, heads = 4, width = 64;

Setup declared(DType element) {
  return plain_setup(element, rows, keys, heads, 2);
}

/// What a kernel makes of inputs that are read as `misread` has them.
Case read_as(
    const Setup& setup, const std::function<void(Case&)>& misread,
    const std::function<void(Case&)>& adds = [](Case&) {}) {
  const Kernel kernel = honest_kernels(setup.element)[0].kernel;
  Case asked = inputs_of(setup, kernel.p_dtype);
  asked.in.erase("do");
  adds(asked);
  Case read = asked;
  misread(read);
  store(asked, run(kernel, setup.spec, views_of(read), {}, setup.element), {"o", "lse"}, setup.element,
        setup.element);
  return asked;
}

/// As the heads of a batch of `entries`, each with as many of them.
void split_into(Case& c, Index entries) {
  for (auto* tensors : {&c.in, &c.out}) {
    for (auto& [name, tensor] : *tensors) {
      tensor.shape[0] = entries;
      if (tensor.shape[1] > 1) tensor.shape[1] /= entries;
    }
  }
}

/// Row i of head h becomes what was row from(i) of head of(h).
void move_rows(Tensor& t, const std::function<Index(Index)>& of, const std::function<Index(Index)>& from) {
  const Tensor before = t;
  const Index count = t.shape[2], size = t.shape[3];
  for (Index h = 0; h < t.shape[1]; ++h) {
    for (Index i = 0; i < count; ++i) {
      std::copy_n(&before.values[(of(h) * count + from(i)) * size], size, &t.values[(h * count + i) * size]);
    }
  }
}
Index own(Index n) {
  return n;
}

/// Random, of half of the keys.
void with_mask(Case& c) {
  Tensor mask{"bool", {}, {1, heads, rows, keys}, {}};
  std::uint32_t state = 1;
  for (Index n = 0; n < heads * rows * keys; ++n) {
    state = state * 1664525 + 1013904223;
    mask.values.push_back(state >> 31);
  }
  c.in["mask"] = mask;
}

}  // namespace

TEST_CASE("a mask or a bias that is read in other rows is named") {
  const DType element = GENERATE(DType::bfloat16, DType::float32);
  Setup setup = declared(element);
  CHECK(first_cause(read_as(
            setup, [](Case& c) { move_rows(c.in.at("mask"), own, [](Index i) { return i % 16; }); },
            with_mask)) == "in/mask of row i modulo 16");
  CHECK(
      first_cause(read_as(
          setup, [](Case& c) { move_rows(c.in.at("mask"), own, [](Index i) { return (i * 5 + 3) % rows; }); },
          with_mask)) ==
      "in/mask of other rows: row 0 of head 0 reads that of row 3 of head 0; row 12 of head 0 "
      "reads that of row 31 of head 0; row 24 of head 0 reads that of row 27 of head 0");
  setup.bias_shape = {1, heads, rows, keys};
  CHECK(first_cause(read_as(setup, [](Case& c) {
          move_rows(c.in.at("bias"), own, [](Index i) { return i / 16 * 16; });
        })) == "in/bias of the first row of its tile of 16");
}

TEST_CASE("a bias of another batch entry is named") {
  Setup setup = declared(DType::float16);
  setup.q_heads = setup.kv_heads = 6;
  setup.bias_shape = {1, 6, rows, keys};
  Case c = read_as(setup, [](Case& read) {
    move_rows(
        read.in.at("bias"), [](Index h) { return h % 2; }, own);
  });
  split_into(c, 3);
  CHECK(first_cause(c) == "in/bias of batch entry 0");
}

TEST_CASE("V or K of another head or batch entry is named") {
  const DType element = GENERATE(DType::bfloat16, DType::float32);
  Setup setup = declared(element);
  setup.q_heads = setup.kv_heads = 6;
  // As 3 batch entries of 2 heads, n mod 3 is the entry and n / 3 its head.
  const auto decoded = [](Index n) { return n % 3 * 2 + n / 3; };
  Case c = read_as(setup, [&](Case& read) { move_rows(read.in.at("v"), decoded, own); });
  split_into(c, 3);
  CHECK(first_cause(c) == "V read from batch entry n mod B and head n / B, where n = b Hkv + h");
  c = read_as(setup, [&](Case& read) {
    for (const char* name : {"k", "v"}) {
      move_rows(
          read.in.at(name), [](Index n) { return n < 4 ? n + 2 : n; }, own);
    }
  });
  split_into(c, 3);
  CHECK(first_cause(c) == "K and V read from the next batch entry");
  CHECK(first_cause(read_as(setup,
                            [](Case& read) {
                              move_rows(
                                  read.in.at("k"), [](Index h) { return (h * h + 3) % 6; }, own);
                            })) ==
        "K of other heads: row 0 of head 0 reads those of head 3; row 4 of head 1 reads those of head 4; "
        "row 8 of head 2 reads those of head 1");
}

TEST_CASE("V with the row stride of K is named") {
  Setup setup = declared(DType::float32);
  setup.v_width = 96;
  CHECK(first_cause(read_as(setup, [](Case& read) {
          Tensor& v = read.in.at("v");
          const Tensor before = v;
          for (Index n = 0; n < v.size(); ++n) {
            const Index h = n / 96 / keys, j = n / 96 % keys;
            v.values[n] = before.values[h * keys * 96 + j * width + n % 96];
          }
        })) == "V read with the row stride of K");
}

TEST_CASE("V of packed sequences that begins where the queries do is named") {
  const Setup setup = declared(DType::bfloat16);
  Case c = read_as(setup, [](Case& read) {
    Tensor mask{"bool", {}, {1, 1, rows, keys}, {}};
    for (Index n = 0; n < rows * keys; ++n) mask.values.push_back((n / keys < 20) == (n % keys < 60));
    read.in["mask"] = mask;
    move_rows(read.in.at("v"), own, [](Index j) { return j < 60 ? j : j - 60 + 20; });
  });
  for (auto* tensors : {&c.in, &c.out})
    for (auto& [name, tensor] : *tensors) tensor = packed(tensor);
  c.spec["layout"] = "thd";
  c.in["cu_seqlens_q"] = {"int64", {}, {3}, {0, 20, rows}};
  c.in["cu_seqlens_k"] = {"int64", {}, {3}, {0, 60, keys}};
  CHECK(first_cause(c) == "V of a sequence read from where cu_seqlens_q has it begin");
}

TEST_CASE("rows of K or V that are those of other tiles, in part of a tile or of its columns, are named") {
  const DType element = GENERATE(DType::bfloat16, DType::float32);
  const Setup setup = declared(element);
  CHECK(first_cause(read_as(setup, [](Case& read) {
          move_rows(read.in.at("v"), own, [](Index j) { return j % 32 < 4 ? j % 32 : j; });
        })) == "rows of V of keys 0..3 of every tile of 32 stale: those of the first tile");
  CHECK(first_cause(read_as(setup, [](Case& read) {
          move_rows(read.in.at("v"), own, [](Index j) { return j >= 48 && j % 16 >= 8 ? j - 16 : j; });
        })) == "rows of V of keys 8..15 of every tile of 16 from key 48 on stale: those of the tile before");
  CHECK(first_cause(read_as(setup, [](Case& read) {
          Tensor& v = read.in.at("v");
          move_rows(v, own, [](Index j) { return std::min(j ^ 8, keys - 1); });
          for (Index n = 0; n < v.size(); ++n)
            if ((n / width % keys ^ 8) >= keys) v.values[n] = 0;
        })) == "rows of V exchanged: key j has that of key j ^ 8");
  CHECK(first_cause(read_as(setup, [](Case& read) {
          Tensor& k = read.in.at("k");
          const Tensor before = k;
          for (Index n = 0; n < k.size(); ++n) {
            const Index j = n / width % keys;
            if (j >= 32 && j < 64 && n % width >= width / 2) k.values[n] = before.values[n - 32 * width];
          }
        })) == "columns 32..63 of rows of K of keys 32..63 stale: those of the tile before");
}

TEST_CASE("rows that are divided by another row sum than their own are named") {
  const DType element = GENERATE(DType::bfloat16, DType::float32);
  const Setup setup = declared(element);
  Case c = dump_of(setup, honest_kernels(element)[0].kernel, false, {"o", "lse", "l"});
  const std::vector<double> l = c.out.at("l").values, lse = c.out.at("lse").values;
  c.out.erase("l");
  Case of_row_before = c, of_two_lanes = c;
  const AttentionInputs in = views_of(c);
  for (Index n = 0; n < heads * rows; ++n) {
    const Index h = n / rows, i = n % rows;
    double sums[2] = {0, 0};  // of the weights of columns 0..3 and 4..7 of every 8
    for (Index j = 0; j < keys; ++j) {
      double s = 0;
      for (Index d = 0; d < width; ++d) s += setup.spec.scale * in.q(h, i, d) * in.k(in.kv_head(h), j, d);
      sums[j % 8 / 4] += std::exp(s - lse[n]);
    }
    for (Index e = n * width; e < (n + 1) * width; ++e) {
      double &before = of_row_before.out.at("o").values[e], &lanes = of_two_lanes.out.at("o").values[e];
      if (i % 4 == 3) before = round_to(before * l[n] / l[n - 1], element);
      if (i % 16 >= 8) lanes = round_to(lanes / sums[e % 8 / 4], element);
    }
    if (i % 16 >= 8) {
      of_two_lanes.out.at("lse").values[n] = round_to(lse[n] + std::log(sums[0]), DType::float32);
    }
  }
  CHECK(first_cause(of_row_before) == "o divided by the row sum of the row before");
  CHECK(first_cause(of_two_lanes) ==
        "the row sum reduced over 2 of the 4 lanes of a quad: columns 0..3 and 4..7 of every 8 apart");
}

TEST_CASE("a mask that is added to the scores as numbers is named") {
  for (const DType element : {DType::float16, DType::bfloat16, DType::float32}) {
    const auto as_bias = [](Case& c) {
      const Tensor mask = c.in.extract("mask").mapped();
      c.in["bias"] = {"float32", DType::float32, mask.shape, mask.values};
    };
    CHECK(first_cause(read_as(declared(element), as_bias, with_mask)) == "in/mask read as a bias of 1 and 0");
  }
}
