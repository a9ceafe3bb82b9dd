// Memory layouts of [batch, head, sequence, width] tensors.
#include "verify/axes/layout.hpp"

namespace attest {

Layout read_layout(KeyReader& spec) {
  return spec.choice<Layout>("layout",
                             {{"bhsd", Layout::bhsd},
                              {"bshd", Layout::bshd},
                              {"sbhd", Layout::sbhd},
                              {"bsm", Layout::bsm},
                              {"sbm", Layout::sbm},
                              {"thd", Layout::thd}},
                             Layout::bhsd);
}

bool merges_heads(Layout layout) {
  return layout == Layout::bsm || layout == Layout::sbm;
}

std::string extents_pattern(Layout layout, const std::string& b, const std::string& h, const std::string& s,
                            const std::string& width) {
  switch (layout) {
    case Layout::bhsd:
      return b + " " + h + " " + s + " " + width;
    case Layout::bshd:
      return b + " " + s + " " + h + " " + width;
    case Layout::sbhd:
      return s + " " + b + " " + h + " " + width;
    case Layout::bsm:
      return b + " " + s + " " + h + "*" + width;
    case Layout::sbm:
      return s + " " + b + " " + h + "*" + width;
    case Layout::thd:
      return s + " " + h + " " + width;
  }
  return {};
}

std::string_view axis_order(Layout layout) {
  switch (layout) {
    case Layout::bhsd:
      return "bhs";
    case Layout::bshd:
    case Layout::bsm:
      return "bsh";
    case Layout::sbhd:
    case Layout::sbm:
      return "sbh";
    case Layout::thd:
      return "sh";
  }
  return {};
}

std::string_view row_axis_order(Layout layout) {
  return layout == Layout::thd ? "hs" : "bhs";
}

}  // namespace attest
