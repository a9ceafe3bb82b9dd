// Attention, forward and backward, in plain loops over rows: the mathematics that everything else is held
// against.
#pragma once

#include "core/attention.hpp"

namespace attest::ref {

/// s[Sk]: the scores of query row i of head h; -inf where the row may not attend.
void attention_scores(const AttentionSpec& spec, const AttentionInputs& in, Index h, Index i,
                      View<double, 1> s);

/// m = max_j s_j, l = sum_j exp(s_j - m), lse = m + ln l (natural log); the sink, if any, is one more score.
/// A row with nothing to attend to has m = -inf, l = 0, lse = -inf.
struct SoftmaxStats {
  double m, l, lse;
};

/// One row of the forward pass: scores s[Sk], weights p[Sk] = exp(s - lse), output o[E] = sum_j p_j v_j.
/// Empty rows follow spec.empty_row.
SoftmaxStats attention_forward_row(const AttentionSpec& spec, const AttentionInputs& in, Index h, Index i,
                                   View<double, 1> s, View<double, 1> p, View<double, 1> o);

/// All rows. Views that are empty are not written.
struct AttentionOutputs {
  View<double, 3> o{};              // [Hq, Sq, E]
  View<double, 2> lse{}, m{}, l{};  // [Hq, Sq]
  View<double, 3> s{}, p{};         // [Hq, Sq, Sk]
};
void attention_forward(const AttentionSpec& spec, const AttentionInputs& in, const AttentionOutputs& out);

/// What the backward pass reads beside the inputs. It is a function of o and lse as given, right or wrong:
///   p_ij = exp(s_ij - lse_i),  ds_ij = p_ij (do_i . v_j - do_i . o_i)
/// (FlashAttention, Dao et al. 2022, algorithm 4). With o and lse of the forward pass these are the
/// gradients.
struct AttentionSaved {
  View<const double, 3> o;    // [Hq, Sq, E]
  View<const double, 2> lse;  // [Hq, Sq], natural log
  View<const double, 3> d_o;  // [Hq, Sq, E]
};

/// dq[D] = scale sum_j softcap'(.) ds_ij k_j of query row i of head h. ds[Sk] is the gradient of the
/// scores, and of a bias. Views that are empty are not written, here and below.
void attention_backward_query(const AttentionSpec& spec, const AttentionInputs& in,
                              const AttentionSaved& saved, Index h, Index i, View<double, 1> dq,
                              View<double, 1> ds);

/// dk[D] = scale sum_i softcap'(.) ds_ij q_i and dv[E] = sum_i p_ij do_i of key j of key/value head g, summed
/// over the query heads that share it.
void attention_backward_key(const AttentionSpec& spec, const AttentionInputs& in, const AttentionSaved& saved,
                            Index g, Index j, View<double, 1> dk, View<double, 1> dv);

/// The gradient of the sink of head h: -sum_i exp(sink_h - lse_i) do_i . o_i.
double attention_backward_sink(const AttentionInputs& in, const AttentionSaved& saved, Index h);

/// All rows and keys.
struct AttentionGradients {
  View<double, 3> dq{}, dk{}, dv{};  // as q, k, v
  View<double, 3> ds{};              // [Hq, Sq, Sk]: the gradient of a bias of full shape
  View<double, 1> dsink{};           // [Hq]
};
void attention_backward(const AttentionSpec& spec, const AttentionInputs& in, const AttentionSaved& saved,
                        const AttentionGradients& out);

}  // namespace attest::ref
