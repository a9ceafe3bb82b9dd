// Attention between linear projections, all of it exact: nothing is rounded between the products.
#include <limits>
#include <stdexcept>

#include "data/golden/results.hpp"

namespace attest::golden {
namespace {

class Multihead {
 public:
  Multihead(const Case& c, Results& results) : case_(c), results_(results) {
    const Tensor *query = c.input("x") ? c.input("x") : c.input("query"),
                 *key = c.input("x") ? c.input("x") : c.input("key");
    batch_first_ = text(c.spec, "layout", "") == "blm";
    batch_ = query->shape[batch_first_ ? 0 : 1];
    queries_ = query->shape[batch_first_ ? 1 : 0];
    keys_ = key->shape[batch_first_ ? 1 : 0];
    width_ = query->shape[2];
    heads_ = static_cast<Index>(number(c.spec, "heads", 1));
    columns_ = width_ / heads_;
    averages_ = !c.spec.contains("average_weights") || boolean(c.spec, "average_weights");
    scale_ = c.spec.contains("scale") ? Interval(number(c.spec, "scale", 1))
                                      : Interval(1) / sqrt(Interval(static_cast<double>(columns_)));
  }

  void run() {
    Output* const y =
        results_.output("y", case_.input("x") ? case_.in.at("x").shape : case_.in.at("query").shape);
    Output* const weights =
        results_.output("weights", averages_ ? std::vector<Index>{batch_, queries_, keys_}
                                             : std::vector<Index>{batch_, heads_, queries_, keys_});
    for (Index b = 0; b < batch_; ++b) {
      const std::vector<Interval> q = projected("query", 0, b, queries_), k = projected("key", 1, b, keys_),
                                  v = projected("value", 2, b, keys_);
      for (Index i = 0; i < queries_; ++i) {
        std::vector<Interval> joined(width_), mean(keys_);
        bool is_empty = false;
        for (Index h = 0; h < heads_; ++h) {
          const std::vector<Interval> p = weights_of(q, k, b, h, i);
          is_empty = is_empty || p.empty();
          for (Index j = 0; j < keys_; ++j) {
            const Interval weight = p.empty() ? Interval(0) : p[j];
            mean[j] += weight;
            for (Index d = 0; d < columns_; ++d) {
              joined[h * columns_ + d].add_product(weight, v[j * width_ + h * columns_ + d]);
            }
            if (weights && !averages_) weights->set(((b * heads_ + h) * queries_ + i) * keys_ + j, weight);
          }
        }
        const bool is_nan = is_empty && text(case_.spec, "empty_row", "zero") == "nan";
        if (is_nan && weights)
          throw std::logic_error("weights of rows without keys: only with empty_row zero");
        for (Index j = 0; weights && averages_ && j < keys_; ++j) {
          weights->set((b * queries_ + i) * keys_ + j, mean[j] / Interval(static_cast<double>(heads_)));
        }
        for (Index n = 0; y && n < width_; ++n) {
          const Index at = token_at(b, i, queries_) + n;
          if (is_nan) {
            y->set(at, std::numeric_limits<double>::quiet_NaN());
          } else {
            y->set(at, out_projected(joined, n));
          }
        }
      }
    }
  }

 private:
  Index token_at(Index b, Index i, Index length) const {
    return (batch_first_ ? b * length + i : i * batch_ + b) * width_;
  }

  std::vector<Interval> projected(const std::string& name, Index third, Index b, Index length) const {
    const std::vector<double>& x = (case_.input("x") ? case_.in.at("x") : case_.in.at(name)).values;
    const Tensor* bias = case_.input("in_proj_bias");
    std::vector<Interval> y;
    for (Index i = 0; i < length; ++i) {
      for (Index n = third * width_; n < (third + 1) * width_; ++n) {
        y.push_back(
            dot(&x[token_at(b, i, length)], &case_.in.at("in_proj_weight").values[n * width_], width_));
        if (bias) y.back() += Interval(bias->values[n]);
      }
    }
    return y;
  }

  Interval out_projected(const std::vector<Interval>& o, Index n) const {
    const Tensor* bias = case_.input("out_proj_bias");
    Interval sum(bias ? bias->values[n] : 0);
    for (Index c = 0; c < width_; ++c) {
      sum.add_product(o[c], case_.in.at("out_proj_weight").values[n * width_ + c]);
    }
    return sum;
  }

  bool may_attend(Index b, Index h, Index i, Index j) const {
    const std::string causal = text(case_.spec, "causal", "");
    if (causal != "none" && j > i + (causal == "top_left" ? 0 : keys_ - queries_)) return false;
    const Tensor* mask = case_.input("mask");
    if (!mask) return true;
    const Index at[4] = {b, h, i, j};
    Index flat = 0;
    for (std::size_t axis = 0; axis < mask->shape.size(); ++axis) {
      const Index n = at[4 - mask->shape.size() + axis];
      flat = flat * mask->shape[axis] + (mask->shape[axis] == 1 ? 0 : n);
    }
    return mask->values[flat] != 0;
  }

  /// Empty if the row may attend to no key.
  std::vector<Interval> weights_of(const std::vector<Interval>& q, const std::vector<Interval>& k, Index b,
                                   Index h, Index i) const {
    std::vector<Interval> p(keys_);
    Interval sum, first;
    bool is_first = true;
    for (Index j = 0; j < keys_; ++j) {
      if (!may_attend(b, h, i, j)) continue;
      Interval score;
      for (Index d = h * columns_; d < (h + 1) * columns_; ++d) {
        score.add_product(q[i * width_ + d], k[j * width_ + d]);
      }
      score *= scale_;
      if (is_first) first = score;  // any common shift keeps the weights
      p[j] = is_first ? Interval(1) : exp(score - first);
      is_first = false;
      sum += p[j];
    }
    if (is_first) return {};
    for (Interval& weight : p) weight /= sum;
    return p;
  }

  const Case& case_;
  Results& results_;
  bool batch_first_, averages_;
  Index batch_, queries_, keys_, width_, heads_, columns_;
  Interval scale_;
};

}  // namespace

void multihead_attention(const Case& c, Results& results) {
  Multihead(c, results).run();
}

}  // namespace attest::golden
