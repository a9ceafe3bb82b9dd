// Inputs that are computed row by row: rounding them, holding them in memory, and the extents of a request.
#include "verify/inputs/generated.hpp"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <exception>
#include <limits>
#include <numeric>

#include "core/invalid_case.hpp"
#include "verify/bounds/lanes.hpp"
#include "verify/bounds/storage_grid.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

/// Memory is taken for what a few words describe, so that nothing else limits it.
void check_memory(const Tensor& tensor) {
  double bytes = sizeof(double);
  for (const Index extent : tensor.shape) bytes *= static_cast<double>(extent);
  const double most =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  if (bytes <= most) return;
  throw InvalidCase("its values need " + number_text(bytes / 0x1p30, 3) + " GiB; this machine has " +
                    number_text(most / 0x1p30, 3));
}

/// Rounds all elements if none of them needs more care; else leaves them alone.
ATTEST_VECTORISED
bool round_within(std::span<double> row, DType dtype) {
  constexpr int most_precision = 51;  // of a StorageGrid
  if (format_of(dtype).precision > most_precision) return false;
  const bounds::StorageGrid grid(dtype);
  const double largest = format_of(dtype).max;
  const Index count = std::ssize(row);
  double* x = row.data();
  Index within = 0;
  for (Index n = 0; n < count; ++n) within += std::abs(x[n]) <= largest;
  if (within < count) return false;
  for (Index n = 0; n < count; ++n) x[n] = std::copysign(grid.round(x[n]), x[n]);
  return true;
}

/// row(n, values) for every n below `count`, by all threads. Of several failures the first row's counts.
template <class Row>
void for_rows(Index count, const Row& row) {
  std::exception_ptr failure;
  Index failed = std::numeric_limits<Index>::max();
#pragma omp parallel for schedule(static)
  for (Index n = 0; n < count; ++n) {
    try {
      row(n);
    } catch (...) {
#pragma omp critical(attest_generated_row)
      if (n < failed) failed = n, failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

void GeneratedTensor::stored_row(Index n, std::span<double> row) const {
  fill(n, row);
  if (!dtype || round_within(row, *dtype)) return;
  for (double& x : row) {
    const double exact = x;
    x = round_to(exact, *dtype);
    if (std::isfinite(exact) && !std::isfinite(x)) {
      throw InvalidCase("the recipe needs " + number_text(exact, 3) + ", which is beyond the largest " +
                        type_name + ", " + number_text(format_of(*dtype).max, 3) +
                        "; another --dtype is needed");
    }
  }
}

void GeneratedTensor::stored_rows(Index first, std::span<double> rows) const {
  for_rows(std::ssize(rows) / width(),
           [&](Index n) { stored_row(first + n, rows.subspan(n * width(), width())); });
}

Tensor GeneratedTensor::whole() const {
  Tensor tensor = header();
  check_memory(tensor);
  tensor.values.resize(tensor.size());
  stored_rows(0, tensor.values);
  return tensor;
}

Tensor GeneratedTensor::part(const Selection& part) const {
  Tensor tensor = header();
  for (std::size_t axis = 0; axis < part.size(); ++axis) tensor.shape[axis] = std::ssize(part[axis]);
  check_memory(tensor);
  tensor.values.resize(tensor.size());
  const std::vector<Index>& columns = part.back();
  for_rows(tensor.size() / std::ssize(columns), [&](Index n) {
    Index line = 0, step = 1, rest = n;  // of the whole tensor
    for (std::size_t axis = part.size() - 1; axis-- > 0; rest /= std::ssize(part[axis])) {
      line += step * part[axis][rest % std::ssize(part[axis])];
      step *= shape[axis];
    }
    const Index count = std::ssize(columns), all = width();
    double* to = tensor.values.data() + n * count;
    std::vector<double> row(all);
    for (Index c = 0; c < count;) {
      const Index held = columns[c] / all, first = held * all;
      if (columns[c] == first && c + all <= count && columns[c + all - 1] == first + all - 1) {
        stored_row(line * parts + held, {to + c, static_cast<std::size_t>(all)});
        c += all;
        continue;
      }
      stored_row(line * parts + held, row);
      for (; c < count && columns[c] < first + all; ++c) to[c] = row[columns[c] - first];
    }
  });
  return tensor;
}

Case realised(const GeneratedCase& g) {
  Case c;
  c.file = "generated";
  c.name = g.name;
  c.op = g.op;
  c.spec = g.request.spec;
  c.contract = g.request.contract;
  c.about = g.about;
  for (const auto& [name, tensor] : g.in) c.in[name] = tensor.whole();
  return c;
}

RequestedExtents::RequestedExtents(const std::vector<InputExtent>& extents, InputRequest& request,
                                   const std::map<std::string, std::string>& overrides) {
  for (const InputExtent& extent : extents) {
    const std::string symbol(extent.symbol);
    if (const auto given = request.shape.find(symbol); given != request.shape.end()) {
      value_[symbol] = given->second;
      continue;
    }
    const auto special = overrides.find(symbol);
    const std::string fallback = special == overrides.end() ? std::string(extent.fallback) : special->second;
    Index number = 0;
    const auto [end, error] = std::from_chars(fallback.data(), fallback.data() + fallback.size(), number);
    value_[symbol] = error == std::errc() ? number : value_.at(fallback);  // symbols stand before their users
  }
  request.shape = value_;
}

GeneratedTensor generated_tensor(DType dtype, std::vector<Index> shape,
                                 std::function<void(Index, std::span<double>)> fill, Index parts) {
  return {std::string(format_of(dtype).name), dtype, std::move(shape), std::move(fill), parts};
}

GeneratedTensor generated_integers(std::vector<Index> values) {
  const Index count = std::ssize(values);
  return {"int32", std::nullopt, {count}, [values = std::move(values)](Index, std::span<double> row) {
            std::copy(values.begin(), values.end(), row.begin());
          }};
}

GeneratedTensor normal_tensor(std::uint64_t seed, const std::string& name, DType dtype,
                              std::vector<Index> shape, double mean, double deviation) {
  const RandomStream stream(seed, name);
  return generated_tensor(dtype, std::move(shape), [=](Index n, std::span<double> row) {
    stream.normals(n * std::ssize(row), row);
    for (double& x : row) x = mean + deviation * x;
  });
}

}  // namespace attest
