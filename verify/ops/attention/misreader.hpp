// Makes misreadings of attention's inputs, and the arrays that they point to.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core/array.hpp"
#include "verify/ops/attention/misreadings.hpp"

namespace attest {

/// Makes an array from inputs once for each sequence, and keeps it.
template <int Rank>
class Kept {
 public:
  using Make = std::function<Array<double, Rank>(const AttentionInputs&)>;
  explicit Kept(Make make) : make_(std::move(make)) {}
  View<const double, Rank> operator()(const AttentionInputs& in) const {
    // Sequences without rows, or without keys, begin where the next one does.
    const Key key{in.q.data_handle(), in.queries(), in.keys()};
    auto found = arrays_->find(key);
    if (found == arrays_->end()) found = arrays_->emplace(key, make_(in)).first;
    return found->second.view();
  }

 private:
  using Key = std::tuple<const double*, Index, Index>;
  Make make_;
  std::shared_ptr<std::map<Key, Array<double, Rank>>> arrays_ =
      std::make_shared<std::map<Key, Array<double, Rank>>>();
};

/// [Hq, Sq, Sk] from f(h, i, j).
template <class F>
Array<double, 3> of_pairs(const AttentionInputs& in, const F& f) {
  Array<double, 3> x({in.q_heads(), in.queries(), in.keys()});
  for (Index h = 0; h < in.q_heads(); ++h) {
    for (Index i = 0; i < in.queries(); ++i) {
      for (Index j = 0; j < in.keys(); ++j) x(h, i, j) = f(h, i, j);
    }
  }
  return x;
}

/// The vector of key j of head h is that of (head, key) = from(h, j); as many heads as `heads`.
template <class From>
Array<double, 3> of_keys(View<const double, 3> x, Index heads, const From& from) {
  Array<double, 3> copy({heads, x.extent(1), x.extent(2)});
  for (Index h = 0; h < heads; ++h) {
    for (Index j = 0; j < x.extent(1); ++j) {
      const auto [head, key] = from(h, j);
      for (Index d = 0; d < x.extent(2); ++d) copy(h, j, d) = x(head, key, d);
    }
  }
  return copy;
}

class Misreader {
 public:
  Misreader(const AttentionSpec& spec, const AttentionInputs& in)
      : spec_(spec), has_few_scores_(in.q_heads() * in.queries() * in.keys() <= most_scores) {}

  std::vector<NamedMisreading> all;

  void of_masks(const AttentionInputs& in);
  void of_scores(const AttentionInputs& in);
  void of_slopes_and_sinks(const AttentionInputs& in);
  void of_heads(const AttentionInputs& in);
  void of_columns(const AttentionInputs& in);
  void of_values(const AttentionInputs& in);

 private:
  static constexpr Index most_scores = Index{1} << 22;

  void add(const std::string& name, std::function<void(AttentionInputs&)> apply, bool needs_no_mask = false) {
    all.push_back({name, needs_no_mask, std::move(apply), false});
  }
  /// The bias has this added to it.
  template <class F>
  void add_to_bias(const std::string& name, F f, bool needs_no_mask = false) {
    const Kept<3> bias([f](const AttentionInputs& x) {
      return of_pairs(
          x, [&](Index h, Index i, Index j) { return (x.bias ? x.bias(h, i, j) : 0) + f(x, h, i, j); });
    });
    add(
        name, [bias](AttentionInputs& x) { x.bias = bias(x); }, needs_no_mask);
  }
  template <class F>
  void mask(const std::string& name, F f, bool needs_no_mask = false) {
    const Kept<3> kept([f](const AttentionInputs& x) {
      return of_pairs(x, [&](Index h, Index i, Index j) { return f(x, h, i, j) ? 1.0 : 0.0; });
    });
    add(
        name, [kept](AttentionInputs& x) { x.mask = kept(x); }, needs_no_mask);
  }

  AttentionSpec spec_;
  bool has_few_scores_;
};

}  // namespace attest
