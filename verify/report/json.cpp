// The JSON report. Its keys and their order are documented in docs/report_json.md.
#include <cmath>
#include <nlohmann/json.hpp>

#include "verify/report/report.hpp"

namespace attest {
namespace {

using Json = nlohmann::ordered_json;

/// JSON has no NaN and no infinities: they are strings.
Json json_of(double value) {
  if (std::isfinite(value)) return value;
  return exact_text(value);
}

Json json_of(const ErrorProfile::Blocks& blocks) {
  return {{"rows", blocks.rows}, {"columns", blocks.columns}};
}

Json json_of(const SpreadByRegion& axis) {
  Json regions = Json::array();
  for (const RegionSpread& x : axis.regions)
    regions.push_back(
        {{"first", x.first}, {"last", x.last}, {"spread", json_of(x.spread)}, {"limit", json_of(x.limit)}});
  return {{"of", axis.names}, {"regions", regions}};
}

Json json_of(const OutputFindings& o) {
  Json statistics = Json::array();
  for (const Statistic& x : o.statistics)
    statistics.push_back({{"name", x.name}, {"value", json_of(x.value)}, {"limit", json_of(x.limit)}});
  Json regions = Json::array();
  for (const SpreadByRegion& axis : o.regions) regions.push_back(json_of(axis));
  Json growth = Json::array();
  for (const Growth& x : o.growth)
    growth.push_back({{"name", x.name},
                      {"value", json_of(x.value)},
                      {"before", json_of(x.before)},
                      {"limit", json_of(x.limit)}});
  return {{"name", o.name},
          {"dtype", o.type_name},
          {"shape", o.shape},
          {"verdict", name_of(o.verdict)},
          {"elements", o.elements},
          {"beyond", o.beyond},
          {"beyond_rigorous", o.beyond_rigorous},
          {"where", o.where},
          {"worst_ratio", json_of(o.worst_ratio)},
          {"worst_rigorous_ratio", json_of(o.worst_rigorous_ratio)},
          {"at", o.at},
          {"got", json_of(o.got)},
          {"want", json_of(o.want)},
          {"bound", json_of(o.bound)},
          {"error", json_of(o.error)},
          {"rms_ratio", json_of(o.rms_ratio)},
          {"statistics", statistics},
          {"stored_operands", o.stored_operands},
          {"predicted", json_of(o.predicted)},
          {"profile",
           {{"spread", json_of(o.profile.spread)},
            {"gain", json_of(o.profile.gain)},
            {"systematic_gain", json_of(o.profile.systematic_gain)}}},
          {"regions", regions},
          {"growth", growth}};
}

Json json_of(const DiagnosisEntry& d) {
  return {{"cause", d.cause}, {"confidence", json_of(d.confidence)}, {"evidence", d.evidence}};
}

Json json_of(const Attributes& attributes) {
  Json object = Json::object();
  for (const auto& [key, attribute] : attributes)
    object[key] = std::visit(
        [](const auto& value) -> Json {
          if constexpr (std::is_same_v<std::decay_t<decltype(value)>, double>)
            return json_of(value);
          else
            return value;
        },
        attribute);
  return object;
}

/// The contract's changes, and how the outputs do under it.
Json json_of(const OtherContract& contract) {
  Json changes = Json::object(), outputs = Json::array();
  for (const OtherContract::Change& change : contract.changes) changes[change.key] = change.to;
  for (const OutputFindings& o : contract.outputs)
    outputs.push_back({{"name", o.name},
                       {"worst_ratio", json_of(o.worst_ratio)},
                       {"rms_ratio", json_of(o.rms_ratio)},
                       {"predicted", json_of(o.predicted)}});
  return {{"changes", changes}, {"outputs", outputs}};
}

Json json_of(const CaseFindings& c);

template <class T>
Json json_list(const std::vector<T>& entries) {
  Json list = Json::array();
  for (const T& entry : entries) list.push_back(json_of(entry));
  return list;
}

Json json_of(const ContractFit& fit) {
  return {{"verdict", name_of(fit.verdict)},     {"contract", json_of(fit.contract)},
          {"weaker", json_list(fit.weaker)},     {"too_weak", json_list(fit.too_weak)},
          {"stricter", json_list(fit.stricter)}, {"judged", fit.judged},
          {"is_minimal", fit.is_minimal}};
}

Json json_of(const CaseFindings& c) {
  Json object = {{"file", c.file},
                 {"name", c.name},
                 {"op", c.op},
                 {"verdict", name_of(c.verdict)},
                 {"contract", c.contract},
                 {"outputs", json_list(c.outputs)},
                 {"diagnosis", json_list(c.diagnosis)},
                 {"reasons", c.reasons},
                 {"remarks", c.remarks},
                 {"judged", c.judged},
                 {"inputs", c.inputs}};
  if (c.fit) object["fit"] = json_of(*c.fit);
  if (!c.error.empty()) object["error"] = c.error;
  object["about"] = json_of(c.about);
  return object;
}

}  // namespace

std::string text_of_json(const std::string& indented) {
  std::string text;
  for (std::size_t at = 0; at < indented.size(); ++at) {
    text += indented[at];
    if (indented[at] == '"') {  // to its end, past what is escaped
      for (++at; indented[at] != '"'; ++at) {
        text += indented[at];
        if (indented[at] == '\\') text += indented[++at];
      }
      text += '"';
    }
    if (indented[at] != '[') continue;
    const std::size_t end = indented.find_first_of("[]{}\"", at + 1);
    if (indented[end] != ']') continue;  // not a list of numbers
    for (++at; at < end; ++at) {
      if (indented[at] != '\n') text += indented[at];
      if (indented[at] != '\n') continue;
      at = indented.find_first_not_of(' ', at + 1) - 1;
      if (text.back() == ',') text += ' ';
    }
    text += ']';
  }
  return text + '\n';
}

std::string json_of_run(const RunFindings& run, std::string_view version) {
  const Json report = {{"attest", version},
                       {"format", report_format},
                       {"cases", json_list(run.cases)},
                       {"verdict", name_of(run.verdict())}};
  // Names in a file may be any bytes; those that are not UTF-8 become U+FFFD.
  return text_of_json(report.dump(2, ' ', false, Json::error_handler_t::replace));
}

}  // namespace attest
