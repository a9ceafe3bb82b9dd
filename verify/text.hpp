// Text for people: numbers that no locale changes, columns, wrapping, colour.
#pragma once

#include <string>
#include <string_view>

#include "core/view.hpp"

namespace attest {

/// How a stream wants its text. Widths count code points, in columns of a terminal.
struct TextStyle {
  bool color = false;
  Index width = 0;  // of a terminal; 0: lines may be of any length
};

/// Of file descriptor fd: plain and unlimited unless it is a terminal. No colour if NO_COLOR is set or TERM
/// is "dumb".
TextStyle style_of(int fd);

bool is_utf8(std::string_view text);

Index display_width(std::string_view text);

/// Control characters as \xNN: text from a file must not move the cursor, and a message stays one line.
std::string printable(std::string_view text);

/// For the text and the attributes of XML and HTML. XML 1.0 has no way to write control characters: they
/// become \xNN. Lines stay lines.
std::string markup_text(std::string_view text);

/// With blanks behind it, up to `width` columns.
std::string padded(std::string text, Index width);

/// At most `width` columns, with an ellipsis in the middle if something had to go.
std::string shortened(const std::string& text, Index width);

/// `text` and a line end, behind `indent` blanks; lines that it is broken into have `hanging` blanks. Width 0
/// breaks nothing.
std::string wrapped(std::string_view text, Index width, Index indent, Index hanging);

enum class Color { bold, green, yellow, red };
std::string painted(const std::string& text, Color color, const TextStyle& style);

/// To so many significant digits, as %g prints; "nan", "inf", "-inf".
std::string number_text(double value, int digits);
/// What number_text has written, as a number; infinite where the digits round beyond the largest double.
/// Never throws.
double number_of(std::string_view text);
/// The fewest digits that read back as the same double.
std::string exact_text(double value);

/// "second", "third", "4th", "21st": n is above 0, the first is "1st".
std::string ordinal(Index n);

/// |error| / bound to two or three digits: "0.62", "1.20", "12", "3.4e+05", "inf". Never rounded onto or
/// across 1.
std::string ratio_text(double ratio);

}  // namespace attest
