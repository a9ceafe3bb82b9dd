// What is said of softmax kernels that fail: each planted fault has its name, and not another's.
#include <array>
#include <cmath>
#include <string>

#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/softmax.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

/// Scores in [-3, 3].
Case dump(const SoftmaxSetup& setup, const SoftmaxKernel& kernel) {
  return softmax_case(setup, kernel, 7, [](Index row, Index j) {
    return 3 * std::sin(1.7 * static_cast<double>(j * j % 97) + static_cast<double>(row));
  });
}

/// Rounds what `change` makes of y, as a kernel stores it.
template <class Change>
Case changed(Case c, const std::string& output, Change change) {
  Tensor& t = c.out.at(output);
  for (Index at = 0; at < t.size(); ++at) t.values[at] = round_to(change(at, t.values[at]), *t.dtype);
  return c;
}

constexpr DType elements[] = {DType::float16, DType::bfloat16, DType::float32};

}  // namespace

TEST_CASE("the faults of a softmax have names") {
  for (const DType element : elements) {
    SoftmaxSetup setup;
    setup.element = element;
    setup.outer = 40;
    const auto cause_of = [&](auto change) {
      SoftmaxKernel kernel;
      change(kernel);
      return first_cause(dump(setup, kernel));
    };
    INFO(format_of(element).name);
    CHECK(cause_of([](SoftmaxKernel& k) { k.padded = 28; }) ==
          "columns of padding as scores of 0, up to 128");
    CHECK(cause_of([](SoftmaxKernel& k) { k.padded = 1; }) == "one more score of 0 in the row sum");
    CHECK(cause_of([](SoftmaxKernel& k) { k.dropped = 1; }) == "a row sum of the first 99 columns only");
    CHECK(cause_of([](SoftmaxKernel& k) { k.sum = DType::bfloat16; }) ==
          "row sum, added up one by one, in bfloat16");
    CHECK(cause_of([](SoftmaxKernel& k) { k.dy_sum = DType::bfloat16; }) ==
          "sum of dy y, added up one by one, in bfloat16");
    CHECK(cause_of([](SoftmaxKernel& k) { k.dropped = 4; }) == "a row sum of the first 96 columns only");
    CHECK(cause_of([](SoftmaxKernel& k) { k.drops_row_sum = true; }) == "a gradient without the row sum");
    CHECK(cause_of([](SoftmaxKernel& k) { k.scale_factor = 0.75; }) == "scale = 0.75");
    setup.has_mask = true;
    CHECK(cause_of([](SoftmaxKernel& k) { k.ignores_mask = true; }) == "the mask ignored");
    setup.has_mask = false;
    setup.scale = 0.5;
    CHECK(cause_of([](SoftmaxKernel& k) { k.scale_factor = 0.5; }) == "the scale applied twice");
    CHECK(first_cause(changed(dump(setup, {}), "dx", [](Index, double x) { return 2 * x; })) ==
          "a gradient without the scale");
  }
}

TEST_CASE("stages of a softmax in narrower formats are named") {
  for (const DType element : elements) {
    for (const DType narrow : {DType::float16, DType::bfloat16}) {
      SoftmaxSetup setup;
      setup.element = element;
      setup.outer = 40;
      const std::string in_narrow = " in " + std::string(format_of(narrow).name);
      const Case right = dump(setup, {});
      const auto &l = right.out.at("l").values, &x = right.in.at("x").values, &m = right.out.at("m").values;
      INFO(format_of(element).name << in_narrow);
      Case c = changed(right, "y", [&](Index at, double) {
        return std::exp(x[at] - m[at / 100]) / round_to(l[at / 100], narrow);
      });
      c.out = {{"y", c.out.at("y")}};
      CHECK(first_cause(c) == "row sum" + in_narrow);
      if (narrow == element) continue;
      SoftmaxKernel kernel;
      kernel.weights = narrow;
      if (element != DType::bfloat16) CHECK(first_cause(dump(setup, kernel)) == "weights" + in_narrow);
    }
  }
}

TEST_CASE("exponentials of a softmax that are rounded where y is formed alone are named") {
  for (const DType element : {DType::float16, DType::float32}) {
    SoftmaxSetup setup;
    setup.element = element;
    setup.outer = 40;
    const Case right = dump(setup, {});
    const auto &l = right.out.at("l").values, &x = right.in.at("x").values, &m = right.out.at("m").values;
    for (const DType narrow : {DType::float16, DType::bfloat16}) {
      INFO(format_of(element).name << " " << format_of(narrow).name);
      const std::string where = ", where y is formed, in " + std::string(format_of(narrow).name);
      const auto cause_of = [&](auto exponential_of) {
        Case c = changed(right, "y", [&](Index at, double) { return exponential_of(at) / l[at / 100]; });
        c.out.erase("dx");
        return first_cause(c);
      };
      const auto exponential = [&](double score) { return round_to(std::exp(score), narrow); };
      CHECK(cause_of([&](Index at) { return exponential(x[at] - m[at / 100]); }) == "exponentials" + where);
      CHECK(cause_of([&](Index at) { return exponential(round_to(x[at] - m[at / 100], narrow)); }) ==
            "score - max and its exponentials" + where);
    }
  }
}

TEST_CASE("powers of 2 in place of powers of e are named where lse is that of the wrong row sum") {
  for (const DType element : elements) {
    SoftmaxSetup setup;
    setup.element = element;
    setup.outer = 40;
    Case c = dump(setup, {});
    const auto power = [x = c.in.at("x").values, m = c.out.at("m").values](Index at) {
      return std::exp2(x[at] - m[at / 100]);
    };
    auto &l = c.out.at("l").values, &lse = c.out.at("lse").values;
    for (Index row = 0; row < 40; ++row) {
      l[row] = 0;
      for (Index at = 100 * row; at < 100 * (row + 1); ++at) l[row] += power(at);
      lse[row] = round_to(c.out.at("m").values[row] + std::log(l[row]), DType::float32);
      l[row] = round_to(l[row], DType::float32);
    }
    c = changed(c, "y", [&](Index at, double) { return power(at) / l[at / 100]; });
    c.out.erase("dx");
    INFO(format_of(element).name);
    CHECK(first_cause(c) == "powers of 2 of score - max in place of powers of e");
  }
}

TEST_CASE("a softmax without its maximum is named where it overflows") {
  SoftmaxSetup setup;
  setup.outer = 8;
  SoftmaxKernel kernel;
  kernel.way = Way::naive;
  const Case c = softmax_case(setup, kernel, 7, [](Index row, Index j) {
    return static_cast<double>((17 * j + row) % 100) + 20 * static_cast<double>(row % 3);
  });
  CHECK(first_cause(c) == "the maximum not subtracted");
}

TEST_CASE("an exp that is a polynomial for the fraction of its exponent is a place, whatever polynomial") {
  for (const DType element : elements) {
    for (const auto& p :
         {std::array{1.0, 0.6951461, 0.2275644, 0.0771191}, std::array{1.0, 0.6565, 0.3435, 0.0}}) {
      if (element == DType::bfloat16 && p[3] != 0) continue;  // far below its rounding
      SoftmaxSetup setup;
      setup.element = element;
      setup.outer = 200;
      const Case right = dump(setup, {});
      const auto &x = right.in.at("x").values, &m = right.out.at("m").values;
      const auto exp = [&](Index at) {
        const double exponent = (x[at] - m[at / 100]) * 1.4426950408889634, n = std::floor(exponent);
        const double f = exponent - n;
        return std::exp2(n) * (p[0] + f * (p[1] + f * (p[2] + f * p[3])));
      };
      std::vector<double> l(200);
      for (Index at = 0; at < 20000; ++at) l[at / 100] += exp(at);
      Case c = changed(right, "y", [&](Index at, double) { return exp(at) / l[at / 100]; });
      c.out = {{"y", c.out.at("y")}, {"lse", c.out.at("lse")}};
      for (Index row = 0; row < 200; ++row)
        c.out.at("lse").values[row] = round_to(m[row] + std::log(l[row]), DType::float32);
      INFO(format_of(element).name);
      CHECK(first_cause(c) == "exp, by a polynomial or a table for the fraction of its exponent");
      // Neither a store that cuts off nor another scale errs so.
      SoftmaxKernel kernel;
      kernel.truncates = true;
      CHECK(first_cause(dump(setup, kernel)) !=
            "exp, by a polynomial or a table for the fraction of its exponent");
      kernel.truncates = false;
      kernel.scale_factor = 1.00007;
      CHECK(first_cause(dump(setup, kernel)) !=
            "exp, by a polynomial or a table for the fraction of its exponent");
    }
  }
}

TEST_CASE("softmax along another axis, and its logarithm, are named") {
  SoftmaxSetup setup;
  setup.outer = 6, setup.inner = 5;
  const Case right = dump(setup, {});
  const auto& x = right.in.at("x").values;
  const Case across = changed(right, "y", [&](Index at, double) {
    double sum = 0;
    for (Index i = 0; i < 5; ++i) sum += std::exp(x[at - at % 5 + i] - x[at]);
    return 1 / sum;
  });
  CHECK(first_cause(across) == "softmax along axis 2");
  const Case logarithm = changed(right, "y", [&](Index at, double) {
    return x[at] - right.out.at("lse").values[at / 500 * 5 + at % 5];
  });
  CHECK(first_cause(logarithm) == "the logarithm of softmax");
}

TEST_CASE("few wrong elements of a softmax do not look like its arithmetic") {
  for (const DType element : elements) {
    SoftmaxSetup setup;
    setup.element = element;
    Case c = dump(setup, {});
    for (const Index at : {70, 207, 503})
      c.out.at("y").values[at] *= 1 + (element == DType::float32 ? 4096 : 64) * unit_roundoff(element);
    INFO(format_of(element).name);
    CHECK(first_cause(c) == "none");
  }
}

TEST_CASE("row sums of other rows, of threads and of other powers are named") {
  for (const DType element : elements) {
    SoftmaxSetup setup;
    setup.element = element;
    setup.outer = 40;
    const Case right = dump(setup, {});
    const std::vector<double> x = right.in.at("x").values, m = right.out.at("m").values,
                              l = right.out.at("l").values;
    INFO(format_of(element).name);
    Case c = changed(right, "y", [&](Index at, double) {
      const Index row = at / 100, of = row % 4 == 3 ? row - 1 : row;
      return std::exp(x[at] - m[row]) / l[of];
    });
    c.out = {{"y", c.out.at("y")}};
    CHECK(first_cause(c) == "the row sum of the row before");
    c = changed(right, "y", [&](Index at, double) {
      double sum = 0;
      for (Index lane = 0; lane < 32; ++lane) {
        double own = 0;
        for (Index j = lane; j < 100; j += 32)
          own = round_to(own + std::exp(x[at / 100 * 100 + j] - m[at / 100]), DType::bfloat16);
        sum += own;
      }
      return std::exp(x[at] - m[at / 100]) / sum;
    });
    c.out = {{"y", c.out.at("y")}};
    CHECK(first_cause(c) == "row sums of each of 32 threads, in bfloat16");
    c = changed(right, "y", [&](Index at, double) {
      double sum = 0;
      for (Index j = at / 100 * 100; j < at / 100 * 100 + 100; ++j)
        if (j % 100 < 40 || j % 100 >= 48) sum += std::exp(x[j] - m[at / 100]);
      return std::exp(x[at] - m[at / 100]) / sum;
    });
    c.out = {{"y", c.out.at("y")}};
    CHECK(first_cause(c) == "columns 40..47 missing in the row sum");
    if (element != DType::float32) continue;
    for (Index row = 0; row < 40; ++row) {
      double sum = 0;
      for (Index j = 0; j < 100; ++j) sum += std::exp2(1.4427 * (x[row * 100 + j] - m[row]));
      c.out.at("y").values[row] = 0;
      for (Index j = 0; j < 100; ++j)
        c.out.at("y").values[row * 100 + j] =
            round_to(std::exp2(1.4427 * (x[row * 100 + j] - m[row])) / sum, element);
    }
    Case with_l = right;
    with_l.out = {{"y", c.out.at("y")}, {"l", right.out.at("l")}};
    for (Index row = 0; row < 40; ++row) {
      double sum = 0;
      for (Index j = 0; j < 100; ++j) sum += std::exp2(1.4427 * (x[row * 100 + j] - m[row]));
      with_l.out.at("l").values[row] = round_to(sum, element);
    }
    CHECK(first_cause(with_l) == "powers of 2 with log2(e) as 1.4427");
  }
}

TEST_CASE("a gradient of softmax whose sum has another factor is named") {
  for (const DType element : elements) {
    SoftmaxSetup setup;
    setup.element = element;
    setup.outer = 40;
    const Case right = dump(setup, {});
    const std::vector<double> x = right.in.at("x").values, dy = right.in.at("dy").values,
                              m = right.out.at("m").values, l = right.out.at("l").values;
    const Case c = changed(right, "dx", [&](Index at, double dx) {
      const Index row = at / 100;
      double sum = 0;
      for (Index j = row * 100; j < row * 100 + 100; ++j) sum += std::exp(x[j] - m[row]) / l[row] * dy[j];
      return row % 4 == 3 ? std::exp(x[at] - m[row]) / l[row] * (dy[at] - sum / 2) : dx;
    });
    INFO(format_of(element).name);
    // In bfloat16, right rows say too little of where.
    const std::string cause = first_cause(c), place = ", in every 4th index of axis 0 from 3 on";
    CHECK((cause == "the gradient's sum times 0.5" || cause == "the gradient's sum times 0.5" + place));
  }
}
