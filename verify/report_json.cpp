// The JSON report. Its keys and their order are documented in docs/report_json.md.
#include <cmath>
#include <nlohmann/json.hpp>

#include "verify/report.hpp"

namespace attest {
namespace {

using Json = nlohmann::ordered_json;

constexpr int report_format = 1;  // counts up when a key changes its meaning or goes away

/// JSON has no NaN and no infinities: they are strings.
Json json_of(double value) {
  if (std::isfinite(value)) return value;
  return exact_text(value);
}

Json json_of(const OutputFindings& o) {
  Json statistics = Json::array();
  for (const Statistic& x : o.statistics)
    statistics.push_back({{"name", x.name}, {"value", json_of(x.value)}, {"limit", json_of(x.limit)}});
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
          {"predicted", json_of(o.predicted)}};
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

Json json_of(const CaseFindings& c);

template <class T>
Json json_list(const std::vector<T>& entries) {
  Json list = Json::array();
  for (const T& entry : entries) list.push_back(json_of(entry));
  return list;
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
                 {"remarks", c.remarks}};
  if (!c.error.empty()) object["error"] = c.error;
  object["about"] = json_of(c.about);
  return object;
}

}  // namespace

std::string json_of_run(const RunFindings& run, std::string_view version) {
  const Json report = {{"attest", version},
                       {"format", report_format},
                       {"cases", json_list(run.cases)},
                       {"verdict", name_of(run.verdict())}};
  // Names in a file may be any bytes; those that are not UTF-8 become U+FFFD.
  return report.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
}

}  // namespace attest
