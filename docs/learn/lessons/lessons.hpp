// The numbers of docs/learn: each lesson computes those of one page, and attest_lessons writes them to files
// that pages include.
#pragma once

#include <array>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "core/array.hpp"
#include "core/attention.hpp"

namespace attest::lessons {

/// Text by name: docs/learn/numbers/<name>.txt.
using Numbers = std::map<std::string, std::string>;

void standard_attention(Numbers& numbers);
void safe_softmax(Numbers& numbers);
void split_softmax(Numbers& numbers);
void online_softmax(Numbers& numbers);
void tiled_forward(Numbers& numbers);
void causal_tiles(Numbers& numbers);
void backward(Numbers& numbers);
void split_keys(Numbers& numbers);
void heads_and_windows(Numbers& numbers);
void rope_and_rmsnorm(Numbers& numbers);
void error_model(Numbers& numbers);
void low_precision(Numbers& numbers);
void speed(Numbers& numbers);

/// Appends to a text, as printf does.
template <class... T>
void print(std::string& text, const char* format, T... values) {
  std::array<char, 200> line{};
  if constexpr (sizeof...(T) == 0) {
    text += format;
  } else {
    std::snprintf(line.data(), line.size(), format, values...);
    text += line.data();
  }
}

/// One line: a label and the elements of a row.
inline void print_row(std::string& text, const char* label, View<const double, 1> x) {
  print(text, "%-14s", label);
  for (Index j = 0; j < x.extent(0); ++j) print(text, " %9.5f", x(j));
  text += "\n";
}

inline void print_matrix(std::string& text, const char* label, View<const double, 2> x) {
  for (Index i = 0; i < x.extent(0); ++i) print_row(text, i == 0 ? label : "", x.slice(i));
}

/// One head with the given rows.
inline Array<double, 3> head_of(const std::vector<std::vector<double>>& rows) {
  Array<double, 3> x({1, static_cast<Index>(rows.size()), static_cast<Index>(rows[0].size())});
  for (Index i = 0; i < x.extent(1); ++i) {
    for (Index d = 0; d < x.extent(2); ++d) x(0, i, d) = rows[i][d];
  }
  return x;
}

/// The example of several pages: four queries, four keys, D = E = 2, scale 1/2.
struct Example {
  Array<double, 3> q = head_of({{1, 0}, {0, 1}, {1, 1}, {2, -1}});
  Array<double, 3> k = head_of({{1, 1}, {0, 2}, {2, 0}, {-1, 1}});
  Array<double, 3> v = head_of({{1, 0}, {0, 1}, {2, 2}, {4, -1}});
  Array<double, 3> d_o = head_of({{1, 0}, {0, 1}, {1, -1}, {2, 1}});

  AttentionInputs inputs() const { return {q.view(), k.view(), v.view(), {}, {}, {}, {}}; }
};

inline AttentionSpec plain(Causal causal, double scale) {
  return {causal, scale, -1, -1, 0, EmptyRow::zero};
}

/// The row of several pages: four scores and their values.
struct Row {
  std::array<double, 4> x{1, 3, 2, 5}, v{10, 20, 30, 40};

  View<const double, 1> scores() const { return {x.data(), {4}}; }
};

}  // namespace attest::lessons
