// Numbers, labels and the frame of an SVG picture.
#pragma once

#include <concepts>
#include <string>

#include "verify/text.hpp"

namespace attest {

std::string number(std::integral auto value) {
  return std::to_string(value);
}

/// anchor: "start", "middle" or "end" of the text is at (x, y).
inline std::string text_at(Index x, Index y, const std::string& anchor, const std::string& text) {
  return "<text class=\"" + anchor + "\" x=\"" + number(x) + "\" y=\"" + number(y) + "\">" +
         markup_text(text) + "</text>";
}

inline std::string image(Index width, Index height, const std::string& alternative,
                         const std::string& content) {
  const std::string w = number(width), h = number(height);
  return "<svg role=\"img\" aria-label=\"" + markup_text(alternative) + "\" width=\"" + w + "\" height=\"" +
         h + "\" viewBox=\"0 0 " + w + " " + h + "\">" + content + "</svg>";
}

}  // namespace attest
