// Tests of the reports: verdicts and their order, the JSON schema, the table and its layout.
#include "verify/report/report.hpp"

#include <unistd.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "verify/dump/inspect.hpp"

namespace {

using namespace attest;
using Json = nlohmann::ordered_json;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr Verdict all_verdicts[] = {Verdict::pass, Verdict::inconclusive, Verdict::fail, Verdict::invalid,
                                    Verdict::internal};

OutputFindings output_named(const std::string& name, double ratio) {
  OutputFindings o;
  o.name = name;
  o.type_name = "float16";
  o.shape = {2, 3, 77, 64};
  o.elements = 29568;
  o.worst_ratio = ratio;
  o.at = {1, 0, 76, 63};
  o.got = 0.1;
  o.want = 0.125;
  o.bound = 1e-3;
  o.error = 0.025;
  o.rms_ratio = 1.0 / 3;
  if (ratio > 1) {
    o.verdict = Verdict::fail;
    o.beyond = 3;
    o.worst_rigorous_ratio = 0.4;
  }
  return o;
}

CaseFindings case_named(const std::string& name, Verdict verdict) {
  CaseFindings c;
  c.file = "kernels.h5";
  c.name = name;
  c.op = "attention";
  c.verdict = verdict;
  if (verdict == Verdict::invalid || verdict == Verdict::internal) {
    c.error = "kernels.h5: /" + name + "/op is \"atention\"";
    return c;
  }
  c.contract = "weights in float16, softmax in float32";
  const double o_ratio = verdict == Verdict::fail ? 25 : 0.62;
  c.outputs = {output_named("o", o_ratio), output_named("lse", 0.08), output_named("dq", 0.71),
               output_named("dk", 0.66), output_named("dv", 0.64)};
  if (verdict == Verdict::fail)
    c.diagnosis = {{"the scale is missing", 0.97, "with scale = 1 every element is within its bound"}};
  if (verdict == Verdict::inconclusive) c.reasons = {"zeros in place of out/dv would pass too"};
  return c;
}

RunFindings run_of_everything() {
  RunFindings run;
  for (const Verdict v : all_verdicts) run.cases.push_back(case_named("case_" + std::string(name_of(v)), v));
  return run;
}

std::string text_of(const RunFindings& run, const TextStyle& style = {}) {
  return text_of_file(run.cases, style) + text_of_summary(run, style);
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("every verdict has a name and an exit status of its own") {
  std::vector<std::string> names;
  std::vector<int> statuses;
  for (const Verdict v : all_verdicts) {
    names.emplace_back(name_of(v));
    statuses.push_back(exit_status(v));
  }
  CHECK(names == std::vector<std::string>{"pass", "inconclusive", "fail", "invalid", "internal"});
  CHECK(statuses == std::vector<int>{0, 4, 1, 3, 5});
}

TEST_CASE("a run is as grave as its gravest case, wherever that stands") {
  for (const Verdict a : all_verdicts) {
    for (const Verdict b : all_verdicts) {
      RunFindings run;
      run.cases = {case_named("a", a), case_named("b", b)};
      CHECK(run.verdict() == std::max(a, b));
    }
  }
  CHECK(RunFindings{}.verdict() == Verdict::inconclusive);
}

TEST_CASE("the JSON report has the documented keys in the documented order") {
  const auto keys_of = [](const Json& object) {
    std::vector<std::string> keys;
    for (const auto& item : object.items()) keys.push_back(item.key());
    return keys;
  };
  const Json report = Json::parse(json_of_run(run_of_everything(), "1.2.3"));
  CHECK(keys_of(report) == std::vector<std::string>{"attest", "format", "cases", "verdict"});
  CHECK(report["attest"] == "1.2.3");
  CHECK(report["format"] == 1);
  CHECK(report["verdict"] == "internal");
  REQUIRE(report["cases"].size() == 5);

  const Json& failed = report["cases"][2];
  CHECK(keys_of(failed) == std::vector<std::string>{"file", "name", "op", "verdict", "contract", "outputs",
                                                    "diagnosis", "reasons", "remarks", "judged", "inputs",
                                                    "about"});
  CHECK(failed["file"] == "kernels.h5");
  CHECK(failed["name"] == "case_fail");
  CHECK(failed["verdict"] == "fail");
  CHECK(failed["diagnosis"].dump() == R"([{"cause":"the scale is missing","confidence":0.97,)"
                                      R"("evidence":"with scale = 1 every element is within its bound"}])");
  const Json& o = failed["outputs"][0];
  CHECK(keys_of(o) == std::vector<std::string>{"name",
                                               "dtype",
                                               "shape",
                                               "verdict",
                                               "elements",
                                               "beyond",
                                               "beyond_rigorous",
                                               "where",
                                               "worst_ratio",
                                               "worst_rigorous_ratio",
                                               "at",
                                               "got",
                                               "want",
                                               "bound",
                                               "error",
                                               "rms_ratio",
                                               "statistics",
                                               "stored_operands",
                                               "predicted",
                                               "profile",
                                               "regions",
                                               "growth"});
  CHECK(o["shape"].dump() == "[2,3,77,64]");
  CHECK(o["at"].dump() == "[1,0,76,63]");
  CHECK(o["beyond"] == 3);

  const Json& invalid = report["cases"][3];
  CHECK(keys_of(invalid) == std::vector<std::string>{"file", "name", "op", "verdict", "contract", "outputs",
                                                     "diagnosis", "reasons", "remarks", "judged", "inputs",
                                                     "error", "about"});
  CHECK(invalid["outputs"].dump() == "[]");
  CHECK(invalid["about"].dump() == "{}");
  CHECK(invalid["error"] == "kernels.h5: /case_invalid/op is \"atention\"");
}

TEST_CASE("numbers in JSON read back as they were; NaN and infinities are strings") {
  RunFindings run;
  run.cases = {case_named("a", Verdict::fail)};
  OutputFindings& o = run.cases[0].outputs[0];
  o.got = not_a_number;
  o.want = -infinity;
  o.error = not_a_number;
  o.worst_ratio = infinity;
  o.bound = 0.1 + 0.2;
  run.cases[0].about = {
      {"device", std::string("H200")}, {"runs", std::int64_t{3}}, {"tuned", true}, {"spread", not_a_number}};
  const Json report = Json::parse(json_of_run(run, "1"));
  const Json& output = report["cases"][0]["outputs"][0];
  CHECK(output["got"] == "nan");
  CHECK(output["want"] == "-inf");
  CHECK(output["error"] == "nan");
  CHECK(output["worst_ratio"] == "inf");
  CHECK(output["bound"].get<double>() == 0.1 + 0.2);
  CHECK(output["rms_ratio"].get<double>() == 1.0 / 3);
  CHECK(report["cases"][0]["about"].dump() == R"({"device":"H200","runs":3,"spread":"nan","tuned":true})");
}

TEST_CASE("names that are no UTF-8 still give valid JSON") {
  RunFindings run;
  run.cases = {case_named("\xff\"\n", Verdict::pass)};
  CHECK(Json::parse(json_of_run(run, "1"))["cases"][0]["name"] == "\xEF\xBF\xBD\"\n");
}

TEST_CASE("the table has a line per case and says what is wrong with a failed one") {
  const std::string text = text_of(run_of_everything());
  CHECK(contains(text, "kernels.h5\n"));
  CHECK(contains(text, "  pass          case_pass          o 0.62  lse 0.08  dq 0.71  dk 0.66  dv 0.64\n"));
  CHECK(contains(text, "  fail          case_fail          o 25    lse 0.08  dq 0.71  dk 0.66  dv 0.64\n"));
  CHECK(contains(text,
                 "o: 3 of 29568 elements beyond the bound, none of them certainly: worst 0.40 times the "
                 "rigorous bound\n"));
  CHECK(contains(text,
                 "worst at [1,0,76,63]: got 0.1, want 0.125; |error| 0.025 = 25 times the bound 0.001\n"));
  CHECK(contains(text, "diagnosis: the scale is missing (confidence 0.97): with scale = 1"));
  CHECK(contains(text, "reason: zeros in place of out/dv would pass too\n"));
  CHECK(contains(text, "  contract: weights in float16, softmax in float32\n"));
  CHECK(lines_of(text).back() == "5 cases: 1 pass, 1 inconclusive, 1 fail, 1 invalid, 1 internal");
}

TEST_CASE("a failure beyond the rigorous bound is called certain") {
  RunFindings run;
  run.cases = {case_named("a", Verdict::fail)};
  OutputFindings& o = run.cases[0].outputs[0];
  o.beyond_rigorous = 2;
  o.worst_rigorous_ratio = 3.2;
  CHECK(
      contains(text_of(run), "beyond the bound, 2 of them certainly: worst 3.20 times the rigorous bound\n"));
  o.got = not_a_number;
  o.worst_ratio = o.worst_rigorous_ratio = infinity;
  CHECK(contains(text_of(run), "beyond the bound, 2 of them certainly\n"));
  CHECK(contains(text_of(run), "got nan, want 0.125\n"));
}

TEST_CASE("a contract that the cases of a file do not share stands below each of them") {
  RunFindings run;
  run.cases = {case_named("a", Verdict::pass), case_named("b", Verdict::pass)};
  run.cases[1].contract = "all in float32";
  const std::string text = text_of(run);
  CHECK(contains(text, "      contract: weights in float16, softmax in float32\n"));
  CHECK(contains(text, "      contract: all in float32\n"));
}

TEST_CASE("on a terminal of 80 columns no line is longer, whatever the names are") {
  RunFindings run = run_of_everything();
  run.cases[0].name = "fp16_a_rather_long_name_of_a_case_that_says_everything_about_its_shape_and_its_mask";
  run.cases[1].reasons = {std::string(200, 'x'), "many words " + std::string(90, 'y') + " and more words"};
  run.cases[2].outputs.push_back(output_named("dbias", 3.4e5));
  run.cases[2].outputs.push_back(output_named("dsink", 0.5));
  for (CaseFindings& c : run.cases) c.file = std::string(100, 'd') + "/kernels.h5";
  for (const Index width : {64, 80, 200}) {
    for (const std::string& line : lines_of(text_of(run, {false, width})))
      CHECK(display_width(line) <= width);
  }
  const std::string narrow = text_of(run, {false, 80});
  CHECK(contains(narrow, "…"));
  CHECK(contains(narrow, "dbias 3.4e+05"));
  CHECK(!contains(text_of(run), "…"));
  CHECK(contains(text_of(run), run.cases[0].name));
}

TEST_CASE("there are escape codes only where the style wants colour") {
  CHECK(!contains(text_of(run_of_everything()), "\x1b"));
  CHECK(!contains(text_of(run_of_everything(), {false, 80}), "\x1b"));
  const std::string text = text_of(run_of_everything(), {true, 80});
  CHECK(contains(text, "\x1b[32mpass\x1b[0m"));
  CHECK(contains(text, "\x1b[31mfail\x1b[0m"));
  CHECK(contains(text, "\x1b[33minconclusive\x1b[0m"));
}

TEST_CASE("text from a file cannot move the cursor or add a line") {
  RunFindings run;
  run.cases = {case_named("a\x1b[2J\n\xC2\x9B", Verdict::pass)};
  CHECK(contains(text_of(run), "a\\x1b[2J\\x0a\\x9b"));
}

TEST_CASE("ratios have two or three digits and stay on their side of 1") {
  CHECK(ratio_text(0) == "0.00");
  CHECK(ratio_text(0.618) == "0.62");
  CHECK(ratio_text(0.9999) == "0.99");
  CHECK(ratio_text(1) == "1.00");
  CHECK(ratio_text(1.0001) == "1.01");
  CHECK(ratio_text(9.994) == "9.99");
  CHECK(ratio_text(9.996) == "10");
  CHECK(ratio_text(12.3) == "12");
  CHECK(ratio_text(999.6) == "1.0e+03");
  CHECK(ratio_text(3.4e5) == "3.4e+05");
  CHECK(ratio_text(infinity) == "inf");
  CHECK(ratio_text(not_a_number) == "nan");
}

TEST_CASE("text is cut and wrapped at code points") {
  CHECK(shortened("abcdefgh", 8) == "abcdefgh");
  CHECK(shortened("abcdefgh", 5) == "ab…gh");
  CHECK(shortened("ääääää", 4) == "ää…ä");
  CHECK(shortened("abcdefgh", 1) == "…");
  CHECK(shortened("abcdefgh", -1) == "");
  CHECK(wrapped("one two three", 9, 2, 4) == "  one two\n    three\n");
  CHECK(wrapped("abcdefghij", 6, 2, 3) == "  abcd\n   efg\n   hij\n");
  CHECK(wrapped("one two three", 0, 2, 4) == "  one two three\n");
}

TEST_CASE("what is no terminal gets plain text of any width") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  CHECK(!style_of(ends[1]).color);
  CHECK(style_of(ends[1]).width == 0);
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("inspecting a case lists its keys and the type and shape of its datasets") {
  Case c;
  c.name = "decode";
  c.op = "attention";
  c.spec = {{"causal", std::string("none")}, {"scale", 0.125}, {"window_left", std::int64_t{-1}}};
  c.about = {{"tuned", true}};
  c.in["q"] = {"float16", DType::float16, {1, 8, 1, 64}, {}};
  c.in["kv_lengths"] = {"int64", {}, {1}, {}};
  c.out["o"] = {"float16", DType::float16, {1, 8, 1, 64}, {}};
  CHECK(text_of_case(c, {}) ==
        "  decode  attention\n"
        "    spec      causal       none\n"
        "              scale        0.125\n"
        "              window_left  -1\n"
        "    about     tuned  true\n"
        "    in        kv_lengths  int64    [1]\n"
        "              q           float16  [1,8,1,64]\n"
        "    out       o           float16  [1,8,1,64]\n");
}
