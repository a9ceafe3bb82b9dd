// Matrices as kernels keep them that quantise their operands.
#include "verify/ops/quantised.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/dtype.hpp"

namespace attest {
namespace {

struct Store {
  std::string name;
  double largest;
  std::function<double(double)> round;
};

std::vector<Store> stores() {
  std::vector<Store> all = {{"int8", 127, [](double x) { return std::nearbyint(x); }}};
  for (const DType dtype : {DType::float8_e4m3fn, DType::float8_e5m2}) {
    const Format& f = format_of(dtype);
    all.push_back({std::string(f.name), f.max, [dtype](double x) { return round_to(x, dtype); }});
  }
  return all;
}

}  // namespace

std::vector<Quantised> quantised(View<const double, 2> matrix) {
  const Index rows = matrix.extent(0), width = matrix.extent(1);
  std::vector<double> of_row(rows), ones(rows, 1);
  for (Index r = 0; r < rows; ++r)
    for (Index j = 0; j < width; ++j) of_row[r] = std::max(of_row[r], std::abs(matrix(r, j)));
  const double of_all = rows > 0 ? *std::ranges::max_element(of_row) : 0;
  std::vector<Quantised> all;
  for (const Store& store : stores()) {
    const auto add = [&](const std::string& how, auto unit_of) {
      Quantised& q = all.emplace_back(Quantised{" in " + store.name + how, {}});
      for (Index r = 0; r < rows; ++r) {
        const double unit = unit_of(r);
        for (Index j = 0; j < width; ++j)
          q.values.push_back(unit == 0 ? 0 : unit * store.round(matrix(r, j) / unit));
      }
    };
    if (store.name != "int8") add("", [](Index) { return 1.0; });
    add(" with one factor", [&](Index) { return of_all / store.largest; });
    add(" with a factor for each row", [&](Index r) { return of_row[r] / store.largest; });
  }
  return all;
}

}  // namespace attest
