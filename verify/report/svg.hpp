// Pictures of errors as SVG, in the classes that html_style.hpp gives their colours.
#pragma once

#include <string>

#include "verify/statistics/picture.hpp"

namespace attest {

/// With axes, an outline around what is wrong, and tiles where that suggests some. `alternative`: the text
/// that stands for the picture where it cannot be seen.
std::string svg_of(const ErrorMap& map, const std::string& alternative);

/// The cells alone, at most 32 along each side.
std::string small_svg_of(const ErrorMap& map, const std::string& alternative);

/// Bars, and as a line those of a normal distribution that spreads as predicted.
std::string svg_of(const ErrorHistogram& histogram, const std::string& alternative);
std::string small_svg_of(const ErrorHistogram& histogram, const std::string& alternative);

/// What the colours of the cells mean, as HTML.
std::string legend_html();

}  // namespace attest
