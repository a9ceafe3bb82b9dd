// The page with pictures: verdicts first, then what a kernel author asks of each case, in this order.
// docs/html_report.md.
#include <algorithm>
#include <cmath>
#include <iterator>

#include "verify/report/html_style.hpp"
#include "verify/report/report.hpp"
#include "verify/report/sentences.hpp"
#include "verify/report/svg.hpp"

namespace attest {
namespace {

std::string element(const std::string& name, const std::string& html) {
  return "<" + name + ">" + html + "</" + name + ">\n";
}

/// With the class of a verdict, which gives it a colour.
std::string verdict_html(Verdict verdict, const std::string& text) {
  return "<strong class=\"" + std::string(name_of(verdict)) + "\">" + markup_text(text) + "</strong>";
}

std::string id_of(Index number) {
  return "case-" + std::to_string(number + 1);
}

// The table of all cases

std::string ratios_html(const CaseFindings& c) {
  std::string html;
  for (const OutputFindings& o : c.outputs) {
    const std::string text = o.name + " " + ratio_text(o.worst_ratio);
    html += "<span>" + (o.verdict == Verdict::pass ? markup_text(text) : verdict_html(o.verdict, text)) +
            "</span> ";
  }
  return html;
}

std::string overview(const std::vector<CaseFindings>& cases) {
  std::string html =
      "<table>\n<thead><tr><th scope=\"col\">verdict</th><th scope=\"col\">case</th>"
      "<th scope=\"col\">largest |error| / bound; above 1 fails</th></tr></thead>\n";
  for (std::size_t first = 0; first < cases.size();) {
    html += "<tbody>\n<tr><th colspan=\"3\" scope=\"rowgroup\">" + markup_text(cases[first].file) +
            "</th></tr>\n";
    const std::string& file = cases[first].file;
    for (; first < cases.size() && cases[first].file == file; ++first) {
      const CaseFindings& c = cases[first];
      html += "<tr><td>" + verdict_html(c.verdict, std::string(name_of(c.verdict))) +
              "</td><th scope=\"row\"><a href=\"#" + id_of(static_cast<Index>(first)) + "\">" +
              markup_text(c.name) + "</a><small>" + markup_text(c.op) + "</small></th><td>" + ratios_html(c) +
              "</td></tr>\n";
    }
    html += "</tbody>\n";
  }
  return html + "</table>\n";
}

// A case

std::string sentence_of(const CaseFindings& c) {
  const auto failed = [](const OutputFindings& o) { return o.verdict == Verdict::fail; };
  std::string names;
  bool grew_only = true;
  switch (c.verdict) {
    case Verdict::pass:
      return "every element is within its bound, and wrong answers would not have been.";
    case Verdict::inconclusive:
      return "nothing is wrong, but this case cannot tell: " +
             (c.reasons.empty() ? std::string("there is nothing to hold it against.")
                                : c.reasons.front() + ".");
    case Verdict::fail:
      for (const OutputFindings& o : c.outputs) {
        if (!failed(o)) continue;
        names += (names.empty() ? "" : ", ") + o.name;
        grew_only &= o.beyond == 0 && std::ranges::none_of(o.statistics, &Statistic::exceeds);
      }
      return names + (std::ranges::count_if(c.outputs, failed) == 1 ? " is" : " are") + " further off than " +
             (grew_only ? "in the baseline." : "the contract allows.");
    default:
      return c.error;
  }
}

std::string attribute_text(const Attribute& attribute) {
  if (const auto* text = std::get_if<std::string>(&attribute)) return *text;
  if (const auto* value = std::get_if<double>(&attribute)) return exact_text(*value);
  if (const auto* value = std::get_if<std::int64_t>(&attribute)) return std::to_string(*value);
  return std::get<bool>(attribute) ? "true" : "false";
}

std::string entry(const std::string& term, const std::string& html) {
  return html.empty() ? "" : "<dt>" + term + "</dt><dd>" + html + "</dd>\n";
}

std::string list_html(const std::vector<std::string>& texts) {
  std::string html;
  for (const std::string& text : texts) html += element("li", markup_text(text));
  return html.empty() ? "" : "<ul>" + html + "</ul>";
}

/// The first few parts of outputs whose errors spread beyond their limits.
std::string parts_html(const CaseFindings& c) {
  constexpr std::size_t most = 4;
  std::vector<std::string> texts;
  for (const OutputFindings& o : c.outputs) {
    std::vector<std::string> beyond;
    for (const SpreadByRegion& axis : o.regions)
      std::ranges::move(sentences_of(axis), std::back_inserter(beyond));
    for (std::size_t n = 0; n < std::min(beyond.size(), most); ++n)
      texts.push_back(o.name + ", " + beyond[n]);
    if (beyond.size() > most)
      texts.push_back(o.name + ": so do " + std::to_string(beyond.size() - most) + " more parts");
  }
  return list_html(texts);
}

/// "o: errors spread by head 0.61 to 0.68, by query row 0.6 to 0.71"
std::string text_of_parts(const CaseFindings& c) {
  std::string text;
  for (const OutputFindings& o : c.outputs) {
    std::string ranges;
    for (const SpreadByRegion& axis : o.regions)
      if (!axis.regions.empty()) ranges += (ranges.empty() ? "" : ", ") + range_text(axis);
    if (!ranges.empty()) text += "      " + o.name + ": errors spread " + ranges + "\n";
  }
  return text;
}

std::string facts(const CaseFindings& c) {
  std::string causes, about;
  for (const DiagnosisEntry& d : c.diagnosis)
    causes += element("li", markup_text(d.cause) + " <span class=\"soft\">(confidence " +
                                number_text(d.confidence, 2) + "): " + markup_text(d.evidence) + "</span>");
  for (const auto& [key, value] : c.about)
    about += (about.empty() ? "" : "<br/>") + markup_text(key + ": " + attribute_text(value));
  const std::string html =
      entry("contract", markup_text(c.contract)) + entry("judged", markup_text(c.judged)) +
      entry("diagnosis", causes.empty() ? "" : "<ol>" + causes + "</ol>") +
      entry("fit", c.fit ? list_html(sentences_of(*c.fit)) : "") +
      entry("why inconclusive", list_html(c.reasons)) + entry("remarks", list_html(c.remarks)) +
      entry("spread of parts", parts_html(c)) + entry("about", about);
  return html.empty() ? "" : "<dl>\n" + html + "</dl>\n";
}

/// "0.94", and its limit below.
std::string statistic_html(const OutputFindings& o, const std::string& name) {
  const auto x = std::ranges::find(o.statistics, name, &Statistic::name);
  if (x == o.statistics.end()) return "";
  std::string value = number_text(x->value, 3);
  for (std::size_t at = 0; (at = value.find('-', at)) != value.npos;)
    value.replace(at, 1, "−");  // which breaks no line
  return (x->exceeds() ? verdict_html(Verdict::fail, value) : value) + "<small>" +
         (std::isfinite(x->limit) ? "limit " + number_text(x->limit, 3) : "no limit") + "</small>";
}

std::string shape_text(const OutputFindings& o) {
  std::string text = o.type_name + " [";
  for (std::size_t axis = 0; axis < o.shape.size(); ++axis)
    text += (axis > 0 ? ", " : "") + std::to_string(o.shape[axis]);
  return text + "]";
}

std::string extent_text(const MapAxis& axis) {
  const Index count = axis.extent / axis.group;
  return std::to_string(count) + " " + (count == 1 ? axis.name : axis.names) +
         (axis.each.empty() ? "" : " of " + axis.each);
}

/// "64 query rows x 64 columns, of 4 heads the largest"
std::string map_text(const ErrorMap& map) {
  const std::string across = extent_text(map.across),
                    down = map.down.name.empty() ? "" : extent_text(map.down) + " × ";
  return down + across + (map.over.empty() ? "" : "; the largest of " + map.over);
}

std::string alternative(const OutputFindings& o, const ErrorMap& map) {
  return "Map of |error| / bound of " + o.name + ": " + map_text(map) + ". " +
         (o.beyond > 0 ? "Beyond the bound: " + o.where + "." : "Nothing is beyond the bound.") +
         " Largest: " + ratio_text(o.worst_ratio);
}

std::string alternative(const OutputFindings& o, const ErrorHistogram& histogram) {
  return "Histogram of the errors of " + o.name + " in units of what is predicted, of " +
         std::to_string(histogram.total) + " elements, beside a normal distribution";
}

std::string output_row(const OutputFindings& o) {
  const std::string ratio = ratio_text(o.worst_ratio);
  std::string map, histogram;
  if (o.picture && !o.picture->maps.empty()) {
    const ErrorMap& whole = o.picture->maps.front();
    map = small_svg_of(whole, alternative(o, whole));
  }
  if (o.picture && o.picture->histogram.total > 0)
    histogram = small_svg_of(o.picture->histogram, alternative(o, o.picture->histogram));
  return "<tr><th scope=\"row\">" + markup_text(o.name) + "<small>" + markup_text(shape_text(o)) +
         "</small></th><td>" + (o.verdict == Verdict::pass ? ratio : verdict_html(o.verdict, ratio)) +
         "</td><td>" + statistic_html(o, "spread") + "</td><td>" + statistic_html(o, "gain") +
         "</td><td class=\"small\">" + map + histogram + "</td></tr>\n";
}

std::string outputs_table(const CaseFindings& c) {
  std::string html =
      "<table>\n<thead><tr><th scope=\"col\">output</th><th scope=\"col\">|error| / bound</th>"
      "<th scope=\"col\">spread</th><th scope=\"col\">gain</th><th scope=\"col\">where, how "
      "much</th></tr></thead>\n<tbody>\n";
  for (const OutputFindings& o : c.outputs) html += output_row(o);
  return html + "</tbody>\n</table>\n";
}

std::string cell_text(const ErrorMap& map) {
  const auto size = [](const MapAxis& axis) {
    return std::to_string(axis.per_cell) + " " + (axis.per_cell == 1 ? axis.unit : axis.units);
  };
  if (map.down.per_cell * map.across.per_cell == 1) return "";
  return " A cell: " + (map.down.name.empty() ? "" : size(map.down) + " × ") + size(map.across) + ".";
}

std::string tile_text(const MapAxis& axis) {
  if (axis.tile == 0) return "";
  return " What is wrong begins and ends at multiples of " + std::to_string(axis.tile) + " " + axis.names +
         ": dotted, tiles of " + std::to_string(axis.tile) + ".";
}

std::string figure(const std::string& svg, const std::string& caption) {
  return "<figure>" + svg + "<figcaption>" + markup_text(caption) + "</figcaption></figure>\n";
}

/// What is wrong with an output, and where.
std::string failed_output(const OutputFindings& o) {
  std::vector<std::string> sentences;
  if (o.beyond > 0) sentences = {beyond_sentence(o), worst_sentence(o)};
  for (const Statistic& x : o.statistics)
    if (x.exceeds()) sentences.push_back(attest::sentence_of(x));
  for (const Growth& x : o.growth) sentences.push_back(attest::sentence_of(x));
  std::string html =
      element("h3", markup_text(o.name) + " <span class=\"soft\">" + markup_text(shape_text(o)) + "</span>") +
      list_html(sentences);
  if (!o.picture) return html;
  std::string pictures;
  for (const ErrorMap& map : o.picture->maps)
    pictures += figure(svg_of(map, alternative(o, map)),
                       map_text(map) + "." + cell_text(map) + tile_text(map.down) + tile_text(map.across));
  if (const ErrorHistogram& histogram = o.picture->histogram; histogram.total > 0)
    pictures += figure(
        svg_of(histogram, alternative(o, histogram)),
        "Errors in units of what is predicted; right: away from zero. The line: a normal distribution that "
        "spreads as predicted. Beyond ±4: " +
            std::to_string(histogram.count.front() + histogram.count.back()) + " of " +
            std::to_string(histogram.total) + ".");
  if (!pictures.empty()) html += legend_html() + "\n<div class=\"pictures\">\n" + pictures + "</div>\n";
  return html;
}

std::string section_of(const CaseFindings& c, Index number) {
  std::string html = "<section id=\"" + id_of(number) + "\">\n" + element("h2", markup_text(c.name)) +
                     "<p class=\"soft\">" + markup_text(c.op + (c.op.empty() ? "" : " in ") + c.file) +
                     "</p>\n" +
                     element("p", verdict_html(c.verdict, std::string(name_of(c.verdict)) + ":") + " " +
                                      markup_text(sentence_of(c))) +
                     facts(c);
  if (!c.outputs.empty()) html += outputs_table(c);
  for (const OutputFindings& o : c.outputs)
    if (o.verdict != Verdict::pass) html += failed_output(o);
  if (!c.outputs.empty())
    html += "<details><summary>All that was measured</summary><pre>" +
            markup_text(text_of_evidence(c) + text_of_parts(c)) + "</pre></details>\n";
  return html + "</section>\n";
}

}  // namespace

std::string html_of_run(const RunFindings& run, std::string_view version) {
  std::string title = text_of_counts(run, {});
  title.pop_back();  // the line end
  std::string html =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
      // The page needs nothing from elsewhere, and gets nothing.
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'\"/>\n" +
      element("title", "attest: " + markup_text(title)) + element("style", picture_style) +
      element("style", page_style) + "</head>\n<body>\n<main>\n" + element("h1", markup_text(title)) +
      "<p class=\"soft\">attest " + markup_text(version) + "</p>\n" + overview(run.cases) +
      "<p class=\"soft\">Colours of the maps: the largest |error| / bound of a cell.</p>\n" + legend_html() +
      "\n";
  for (std::size_t n = 0; n < run.cases.size(); ++n) html += section_of(run.cases[n], static_cast<Index>(n));
  return html + "</main>\n</body>\n</html>\n";
}

}  // namespace attest
