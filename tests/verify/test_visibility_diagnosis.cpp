// What is said of rows that see other keys than they should, of lse alone, and of results of split keys that
// are merged wrongly.
#include <cmath>
#include <functional>
#include <numbers>

#include "tests/catch.hpp"
#include "tests/emulate/honest_attention.hpp"
#include "tests/emulate/judged.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

constexpr Index rows = 48, keys = 150, heads = 4, width = 64;

Setup declared(DType element) {
  return plain_setup(element, rows, keys, heads, 2);
}

/// A kernel whose rows see the keys that sees(i, j) says, while the dump has no mask.
Case seeing(DType element, const std::function<bool(Index i, Index j)>& sees) {
  const Setup setup = declared(element);
  const Kernel kernel = honest_kernels(element)[0].kernel;
  Case asked = inputs_of(setup, kernel.p_dtype);
  asked.in.erase("do");
  Case read = asked;
  Tensor mask{"bool", {}, {1, 1, rows, keys}, {}};
  for (Index n = 0; n < rows * keys; ++n) mask.values.push_back(sees(n / keys, n % keys));
  read.in["mask"] = mask;
  store(asked, run(kernel, setup.spec, views_of(read), {}, element), {"o", "lse"}, element, element);
  return asked;
}

/// Keys split among workers of `size` keys each: what they hand over, and what is made of it.
struct Part {
  std::vector<double> sum;  // of e^(s - m) v
  double m, l;
};
using Merge = std::function<double(const std::vector<Part>& parts, std::vector<double>& o)>;  // returns lse

/// In the last part of a row, V may be that of the part before. Parts but the last may have keys more.
Case merged(DType element, Index size, const Merge& merge, Causal causal = Causal::none,
            bool has_stale_values = false, Index overlap = 0) {
  Setup setup = declared(element);
  setup.spec.causal = causal;
  Case c = inputs_of(setup, element);
  c.in.erase("do");
  const AttentionInputs in = views_of(c);
  Tensor o{std::string(format_of(element).name), element, {1, heads, rows, width}, {}};
  Tensor lse{"float32", DType::float32, {1, heads, rows}, {}};
  for (Index h = 0; h < heads; ++h) {
    for (Index i = 0; i < rows; ++i) {
      std::vector<Part> parts;
      const Index count = causal == Causal::none ? keys : keys - rows + i + 1;
      for (Index first = 0; first < count; first += size) {
        Part part{std::vector<double>(width), -INFINITY, 0};
        const Index last = first + size >= count ? count : first + size + overlap;
        const Index shift = has_stale_values && last == count ? size : 0;
        std::vector<double> s;
        for (Index j = first; j < last; ++j) {
          double product = 0;
          for (Index d = 0; d < width; ++d) product += in.q(h, i, d) * in.k(in.kv_head(h), j, d);
          s.push_back(setup.spec.scale * product);
          part.m = std::max(part.m, s.back());
        }
        for (Index j = first; j < last; ++j) {
          const double p = std::exp(s[j - first] - part.m);
          part.l += p;
          for (Index e = 0; e < width; ++e) part.sum[e] += p * in.v(in.kv_head(h), j - shift, e);
        }
        parts.push_back(part);
      }
      std::vector<double> row(width);
      lse.values.push_back(round_to(merge(parts, row), DType::float32));
      for (const double x : row) o.values.push_back(round_to(x, element));
    }
  }
  c.out["o"] = o, c.out["lse"] = lse;
  return c;
}

/// Weighted by weight(n), the lse from what adds up.
double merge_by(const std::vector<Part>& parts, std::vector<double>& o,
                const std::function<double(std::size_t n)>& weight) {
  double total = 0;
  for (std::size_t n = 0; n < parts.size(); ++n) {
    total += weight(n) * parts[n].l;
    for (std::size_t e = 0; e < o.size(); ++e) o[e] += weight(n) * parts[n].sum[e];
  }
  for (double& x : o) x /= total;
  return total;
}

double highest(const std::vector<Part>& parts) {
  return std::ranges::max(parts, {}, &Part::m).m;
}

double merge_rightly(const std::vector<Part>& parts, std::vector<double>& o) {
  const double m = highest(parts);
  return m + std::log(merge_by(parts, o, [&](std::size_t n) { return std::exp(parts[n].m - m); }));
}

}  // namespace

TEST_CASE("rows that see other keys than they should are named, with the keys") {
  const DType element = GENERATE(DType::float16, DType::bfloat16, DType::float32);
  const auto hides = [](Index i, Index j) { return i == 5 && j >= 30 && j < 34; };
  CHECK(first_cause(seeing(element, [&](Index i, Index j) { return !hides(i, j); })) ==
        "rows do not see all keys that they should: row 5 of head 0 misses keys 30..33");
  const std::string scattered = first_cause(
      seeing(element, [](Index i, Index j) { return !(i >= 32 && (j == 57 || j == 59 + i % 2)); }));
  INFO(scattered);
  CHECK(scattered.starts_with(
      "rows do not see all keys that they should: row 32 of head 0 misses key 57, key 59"));
}

TEST_CASE("keys behind a sequence that take weight in some rows are named") {
  const Setup setup = declared(DType::float16);
  const Kernel kernel = honest_kernels(DType::float16)[0].kernel;
  Case c = dump_of(setup, kernel, false, {"o", "lse"});
  c.in["kv_lengths"] = {"int64", {}, {1}, {keys - 3}};
  Case right = c;
  AttentionInputs in = views_of(c);
  in.k = in.k.narrowed(1, 0, keys - 3), in.v = in.v.narrowed(1, 0, keys - 3);
  store(right, run(kernel, setup.spec, in, {}, DType::float16), {"o", "lse"}, DType::float16, DType::float16);
  REQUIRE(judged(right).verdict == Verdict::pass);
  for (Index h = 0; h < heads; ++h) {  // the kernel sees all keys in row 7 alone
    const Index row = h * rows + 7;
    std::copy_n(&c.out.at("o").values[row * width], width, &right.out.at("o").values[row * width]);
    right.out.at("lse").values[row] = c.out.at("lse").values[row];
  }
  CHECK(first_cause(right).find("keys 147..149") == std::string::npos);  // an answer is simpler
  CHECK(first_cause(right) == "in/kv_lengths ignored");
}

TEST_CASE("an lse that is off by a number or a factor is named with it") {
  const DType element = GENERATE(DType::float16, DType::float32);
  const Case c = dump_of(declared(element), honest_kernels(element)[0].kernel, false, {"o", "lse"});
  const auto with = [&](auto change) {
    Case wrong = c;
    for (double& x : wrong.out.at("lse").values) x = round_to(change(x), DType::float32);
    return first_cause(wrong);
  };
  CHECK(with([](double x) { return x + std::log(256.0); }) ==
        "lse 5.545 too large: its row sum multiplied by 256");
  // Of 0.99993194; float32 has the rest.
  CHECK(with([](double x) {
          return 0.6931 / std::numbers::ln2 * x;
        }).starts_with("lse multiplied by 0.999931"));
}

TEST_CASE("results of split keys that are merged wrongly are named, whatever the size of a split") {
  const DType element = GENERATE(DType::float16, DType::float32);
  const Index size = element == DType::float16 ? 40 : 56;
  const std::string merge = "results of split keys merged ";
  REQUIRE(judged(merged(element, size, merge_rightly)).verdict == Verdict::pass);
  CHECK(first_cause(merged(element, size, [](const std::vector<Part>& parts, std::vector<double>& o) {
          merge_by(parts, o, [](std::size_t) { return 1.0; });
          std::vector<double> unused(o.size());
          return merge_rightly(parts, unused);
        })) == merge + "without e^(m - M): each relative to its own maximum");
  CHECK(first_cause(merged(element, size, [](const std::vector<Part>& parts, std::vector<double>& o) {
          const double m = highest(parts);
          return m + std::log(merge_by(parts, o, [&](std::size_t n) { return std::exp2(parts[n].m - m); }));
        })) == merge + "with 2^(m - M) of natural maxima m");
  CHECK(first_cause(merged(element, size, [](const std::vector<Part>& parts, std::vector<double>& o) {
          const double m = highest(parts);
          return m + std::log(merge_by(parts, o, [&](std::size_t n) {
                   return std::exp(parts[(n + 1) % parts.size()].m - m);
                 }));
        })) == merge + "with the maximum of the next split");
  CHECK(first_cause(merged(element, size, [](const std::vector<Part>& parts, std::vector<double>& o) {
          const double m = highest(parts);
          return m + std::log(merge_by(parts, o,
                                       [&](std::size_t n) { return std::exp(parts[n].m - m) / parts[n].l; }));
        })) == merge + "with e^(m - M) alone, without their row sums");
  // What such kernels write as lse is of the same kind.
  const auto lse_of = [](const Part& part) { return part.m + std::log(part.l); };
  CHECK(first_cause(merged(element, size, [&](const std::vector<Part>& parts, std::vector<double>& o) {
          merge_by(parts, o, [&](std::size_t n) { return 1 / parts[n].l; });
          return lse_of(parts.back()) + std::log(static_cast<double>(parts.size()));
        })) == merge + "with equal weights: their mean, without lse");
  CHECK(first_cause(merged(element, size, [&](const std::vector<Part>& parts, std::vector<double>& o) {
          double largest = -INFINITY;
          for (const Part& part : parts) largest = std::max(largest, lse_of(part));
          return largest + std::log(merge_by(parts, o, [&](std::size_t n) {
                   return std::exp2(lse_of(parts[n]) - largest) / parts[n].l;
                 }));
        })) == merge + "in base 2: with 2^lse in place of e^lse");
  CHECK(first_cause(merged(element, size, [&](const std::vector<Part>& parts, std::vector<double>& o) {
          std::vector<double> largest;
          for (const Part& part : parts)
            largest.push_back(std::max(largest.empty() ? -INFINITY : largest.back(), lse_of(part)));
          return largest.back() + std::log(merge_by(parts, o, [&](std::size_t n) {
                   return std::exp(largest[n] - largest.back()) / parts[n].l;
                 }));
        })) == merge + "with e to the largest lse so far in place of e^lse");
  CHECK(first_cause(merged(element, size, [](const std::vector<Part>& parts, std::vector<double>& o) {
          merge_rightly(parts, o);
          double largest = -INFINITY;
          for (const Part& part : parts) largest = std::max(largest, part.m + std::log(part.l));
          return largest;
        })) == "lse is the largest lse of a split");
  // Of two splits of 136 and 14 keys the first has the largest lse, but not always the largest score.
  CHECK(first_cause(merged(element, 136, [](const std::vector<Part>& parts, std::vector<double>& o) {
          merge_rightly(parts, o);
          const Part& best = *std::ranges::max_element(parts, {}, &Part::m);
          return best.m + std::log(best.l);
        })) == "lse is that of the split with the largest score");
}

TEST_CASE("splits that overlap, and merges that lack or do not rescale one, are named") {
  constexpr DType element = DType::float16;
  constexpr Index size = 40;
  const std::string merge = "results of split keys merged ";
  CHECK(first_cause(merged(element, size, [](const std::vector<Part>& parts, std::vector<double>& o) {
          const double m = highest(parts);
          const double lse = merge_rightly(parts, o);
          const double last = parts.back().l * std::exp(parts.back().m - m) / std::exp(lse - m);
          for (double& x : o) x /= 1 - last;
          return lse + std::log1p(-last);
        })) == merge + "without the last one in the sum of weights");
  CHECK(first_cause(merged(element, size, [](const std::vector<Part>& parts, std::vector<double>& o) {
          std::vector<double> unused(o.size());
          const double m = highest(parts), lse = merge_rightly(parts, unused);
          for (std::size_t n = 0; n < parts.size(); ++n) {
            const double weight = std::exp((n == 0 ? parts[n].m : m) - lse);
            for (std::size_t e = 0; e < o.size(); ++e) o[e] += weight * parts[n].sum[e];
          }
          return lse;
        })) == merge + "with o of all but the first relative to its own maximum");
  CHECK(first_cause(merged(element, size, [](const std::vector<Part>& parts, std::vector<double>& o) {
          return merge_rightly(parts, o) + parts[0].m - highest(parts);
        })) == "lse with the maximum of the first split");
  CHECK(first_cause(merged(element, size, merge_rightly, Causal::none, false, 1)) ==
        "the first key of each split counted in the one before, too");
  CHECK(first_cause(merged(element, size, merge_rightly, Causal::none, false, -1)) ==
        "the last key of each split but the last missing");
}

TEST_CASE("what is wrong in the last tile of a row alone is named") {
  const DType element = GENERATE(DType::float16, DType::float32);
  const std::string last_tile = " in the last tile of 32 keys that a row sees";
  const Causal causal = Causal::bottom_right;
  REQUIRE(judged(merged(element, 32, merge_rightly, causal)).verdict == Verdict::pass);
  CHECK(first_cause(merged(element, 32, merge_rightly, causal, true)) ==
        "rows of V stale: those of the tile before," + last_tile);
  // Sums relative to the maximum before the last tile are taken for relative to that of all.
  const auto stale_maximum = [](const std::vector<Part>& parts) {
    return highest({parts.begin(), parts.end() - 1});
  };
  CHECK(first_cause(merged(
            element, 32,
            [&](const std::vector<Part>& parts, std::vector<double>& o) {
              const double m = highest(parts), before = stale_maximum(parts);
              std::vector<double> unused(o.size());
              const double lse = merge_rightly(parts, unused);
              for (const Part& part : parts) {
                const double weight = std::exp(part.m - (&part == &parts.back() ? m : before) + m - lse);
                for (std::size_t e = 0; e < o.size(); ++e) o[e] += weight * part.sum[e];
              }
              return lse;
            },
            causal)) == "P.V not rescaled" + last_tile);
  CHECK(first_cause(merged(
            element, 32,
            [&](const std::vector<Part>& parts, std::vector<double>& o) {
              const double m = highest(parts), before = stale_maximum(parts);
              const double right = merge_rightly(parts, o);
              double l = 0;
              for (const Part& part : parts)
                l += part.l * std::exp(part.m - (&part == &parts.back() ? m : before));
              const double lse = m + std::log(l);
              for (double& x : o) x *= std::exp(right - lse);
              return lse;
            },
            causal)) == "the row sum not rescaled" + last_tile);
}

TEST_CASE("an lse in base 2 whose row sum has another base is named, and lse of another head") {
  Setup setup = declared(DType::float16);
  Case c = dump_of(setup, honest_kernels(DType::float16)[0].kernel, false, {"o", "lse", "m"});
  const Tensor lse = c.out.at("lse"), m = c.out.at("m");
  c.out.erase("m");
  Case next = c;
  for (Index n = 0; n < lse.size(); ++n) next.out.at("lse").values[n] = lse.values[(n + rows) % lse.size()];
  CHECK(first_cause(next) == "lse of another head: the one after");
  for (Index n = 0; n < lse.size(); ++n) {
    const Index i = n % rows;
    next.out.at("lse").values[n] = lse.values[n - i + (2 - i / 16) * 16 + i % 16];
  }
  CHECK(first_cause(next) == "lse of row tiles in reverse order, of 16 rows");
  c.spec["lse_base"] = "2";
  for (Index n = 0; n < lse.size(); ++n) {
    const double in_base_2 = m.values[n] * std::numbers::log2e, row_sum = lse.values[n] - m.values[n];
    c.out.at("lse").values[n] = round_to(in_base_2 + row_sum, DType::float32);
  }
  CHECK(first_cause(c) == "lse with its row sum in base e");
}

TEST_CASE("a maximum that starts at 0 is named where m and l show it") {
  Case c = dump_of(declared(DType::float16), honest_kernels(DType::float16)[0].kernel, false,
                   {"o", "lse", "m", "l"});
  constexpr double shift = -3;  // which is above some maxima and below others
  c.in["bias"] = {"float32", DType::float32, {1, 1, 1, keys}, std::vector<double>(keys, shift)};
  for (const char* name : {"lse", "m"}) {
    for (double& x : c.out.at(name).values) x = round_to(x + shift, DType::float32);
  }
  REQUIRE(judged(c).verdict == Verdict::pass);
  Tensor &m = c.out.at("m"), &l = c.out.at("l");
  for (Index n = 0; n < m.size(); ++n) {
    const double raised = std::max(m.values[n], 0.0);
    l.values[n] = round_to(l.values[n] * std::exp(m.values[n] - raised), DType::float32);
    m.values[n] = raised;
  }
  CHECK(first_cause(c) == "m at least 0: the running maximum starts there");
}

TEST_CASE("q of another batch entry is named") {
  Setup setup = declared(DType::float16);
  const Kernel kernel = honest_kernels(DType::float16)[0].kernel;
  Case c = inputs_of(setup, kernel.p_dtype), read = c;
  c.in.erase("do");
  const auto move_half = [](Tensor& q) {  // heads 0 and 1 take q of heads 2 and 3
    std::copy(q.values.begin() + q.size() / 2, q.values.end(), q.values.begin());
  };
  move_half(read.in.at("q"));
  store(c, run(kernel, setup.spec, views_of(read), {}, setup.element), {"o", "lse"}, setup.element,
        kernel.p_dtype);
  for (auto* tensors : {&c.in, &c.out}) {  // as two entries of two heads, each with a K and V
    for (auto& [name, tensor] : *tensors) tensor.shape[0] = 2, tensor.shape[1] /= 2;
  }
  CHECK(first_cause(c) == "in/q of another sequence: the one after");
}
