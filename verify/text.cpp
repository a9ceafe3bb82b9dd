// Layout of text, and numbers by std::to_chars.
#include "verify/text.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>

namespace attest {
namespace {

bool is_continuation(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

/// The byte at which code point `count` begins, or the size of the text if it has no more than that.
std::size_t bytes_of(std::string_view text, Index count) {
  std::size_t i = 0;
  for (; i < text.size(); ++i)
    if (!is_continuation(text[i]) && count-- == 0) break;
  return i;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::string special_text(double value) {
  return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
}

std::string digits_text(double value, std::chars_format format, int precision) {
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, format, precision).ptr;
  return {buffer, end};
}

}  // namespace

bool is_utf8(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  for (std::size_t i = 0; i < text.size();) {
    const unsigned first = byte(i);
    const std::size_t length = first < 0x80       ? 1
                               : first >> 5 == 6  ? 2
                               : first >> 4 == 14 ? 3
                               : first >> 3 == 30 ? 4
                                                  : 0;
    if (length == 0 || i + length > text.size()) return false;
    unsigned code = length == 1 ? first : first & (0x7fu >> length);
    for (std::size_t k = 1; k < length; ++k) {
      if (byte(i + k) >> 6 != 2) return false;
      code = code << 6 | (byte(i + k) & 0x3f);
    }
    constexpr unsigned smallest[] = {0, 0, 0x80, 0x800, 0x10000};  // a longer form than needed is not UTF-8
    if (code < smallest[length] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
    i += length;
  }
  return true;
}

TextStyle style_of(int fd) {
  if (!isatty(fd)) return {};
  const std::string term = environment("TERM");
  winsize size{};
  Index width = ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
  if (width == 0) width = std::atoi(environment("COLUMNS").c_str());
  if (width <= 0) width = 80;
  return {environment("NO_COLOR").empty() && !term.empty() && term != "dumb", width};
}

Index display_width(std::string_view text) {
  return std::ranges::count_if(text, [](char c) { return !is_continuation(c); });
}

std::string printable(std::string_view text) {
  const char hex[] = "0123456789abcdef";
  const bool keep_beyond_ascii = is_utf8(text);
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0;
    const bool starts_c1_control = byte == 0xC2 && next >= 0x80 && next < 0xA0;
    const bool is_control = byte < 0x20 || byte == 0x7F || (byte >= 0x80 && !keep_beyond_ascii);
    if (is_control || starts_c1_control) {
      const unsigned code = starts_c1_control ? next : byte;
      result += std::string("\\x") + hex[code / 16] + hex[code % 16];
      i += starts_c1_control;
    } else {
      result += text[i];
    }
  }
  return result;
}

std::string markup_text(std::string_view text) {
  std::string result;
  while (true) {
    const std::size_t end = text.find('\n');
    for (const char c : printable(text.substr(0, end))) {
      result += c;
      // U+FFFE and U+FFFF are no characters of XML either.
      if (result.ends_with("\xEF\xBF\xBE") || result.ends_with("\xEF\xBF\xBF")) result.back() = '\xBD';
      const std::string_view entity = c == '&'    ? "&amp;"
                                      : c == '<'  ? "&lt;"
                                      : c == '>'  ? "&gt;"
                                      : c == '"'  ? "&quot;"
                                      : c == '\'' ? "&apos;"
                                                  : "";
      if (!entity.empty()) result.replace(result.size() - 1, 1, entity);
    }
    if (end == text.npos) return result;
    result += '\n';
    text.remove_prefix(end + 1);
  }
}

std::string padded(std::string text, Index width) {
  const Index missing = width - display_width(text);
  if (missing > 0) text.append(static_cast<std::size_t>(missing), ' ');
  return text;
}

std::string shortened(const std::string& text, Index width) {
  const Index full = display_width(text);
  if (full <= width) return text;
  if (width < 1) return "";
  const Index tail = (width - 1) / 2;
  const Index head = width - 1 - tail;
  return text.substr(0, bytes_of(text, head)) + "…" + text.substr(bytes_of(text, full - tail));
}

std::string wrapped(std::string_view text, Index width, Index indent, Index hanging) {
  std::string result(static_cast<std::size_t>(indent), ' ');
  if (width == 0) return result.append(text) += '\n';
  Index column = indent;
  bool line_is_empty = true;
  const auto break_line = [&] {
    result += '\n' + std::string(static_cast<std::size_t>(hanging), ' ');
    column = hanging;
    line_is_empty = true;
  };
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    std::string_view word = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!line_is_empty && column + 1 + display_width(word) > width) break_line();
    if (!line_is_empty) result += ' ', ++column;
    while (!word.empty() && column + display_width(word) > width) {  // a word longer than a line
      const std::size_t part = bytes_of(word, std::max<Index>(width - column, 1));
      result += word.substr(0, part);
      word.remove_prefix(part);
      break_line();
    }
    result += word;
    column += display_width(word);
    line_is_empty = false;
  }
  return result += '\n';
}

std::string painted(const std::string& text, Color color, const TextStyle& style) {
  if (!style.color) return text;
  const char* code = color == Color::bold     ? "1"
                     : color == Color::green  ? "32"
                     : color == Color::yellow ? "33"
                                              : "31";
  return std::string("\x1b[") + code + "m" + text + "\x1b[0m";
}

std::string ordinal(Index n) {
  if (n == 2) return "second";
  if (n == 3) return "third";
  const bool is_teen = n / 10 % 10 == 1;
  const char* ending = is_teen || n % 10 > 3 ? "th"
                       : n % 10 == 1         ? "st"
                       : n % 10 == 2         ? "nd"
                       : n % 10 == 3         ? "rd"
                                             : "th";
  return std::to_string(n) + ending;
}

std::string number_text(double value, int digits) {
  return std::isfinite(value) ? digits_text(value, std::chars_format::general, digits) : special_text(value);
}

double number_of(std::string_view text) {
  double value = 0;
  const auto end = text.data() + text.size();
  if (std::from_chars(text.data(), end, value).ec == std::errc::result_out_of_range)
    value = text.starts_with('-') ? -std::numeric_limits<double>::infinity()
                                  : std::numeric_limits<double>::infinity();
  return value;
}

std::string exact_text(double value) {
  if (!std::isfinite(value)) return special_text(value);
  char buffer[64];
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr};
}

std::string ratio_text(double ratio) {
  if (!std::isfinite(ratio)) return special_text(ratio);
  if (ratio > 1) ratio = std::max(ratio, 1.01);  // 1.001 is beyond the bound, 0.999 is not: let them look it
  if (ratio < 1) ratio = std::min(ratio, 0.99);
  if (ratio < 9.995) return digits_text(ratio, std::chars_format::fixed, 2);
  if (ratio < 999.5) return digits_text(ratio, std::chars_format::fixed, 0);
  return digits_text(ratio, std::chars_format::scientific, 1);
}

}  // namespace attest
