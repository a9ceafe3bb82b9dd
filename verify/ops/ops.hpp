// The records that verify/ops.cpp lists: one function per file of this folder. Folders hold what a record is
// made of.
#pragma once

#include "verify/op.hpp"

namespace attest {

Op attention_op();
Op gelu_op();
Op layer_norm_op();
Op layer_norm_qkv_op();
Op multihead_attention_op();
Op rms_norm_op();
Op rope_op();
Op sigmoid_op();
Op silu_op();
Op softmax_op();

}  // namespace attest
