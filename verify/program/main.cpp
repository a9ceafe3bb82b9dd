// The program `attest`: reads the command line. One bad file or case never hides the others.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <csignal>
#include <sstream>
#include <string>
#include <vector>

#include "verify/atomic_file.hpp"
#include "verify/dump/dump.hpp"
#include "verify/dump/inspect.hpp"
#include "verify/program/compare_command.hpp"
#include "verify/program/inputs_command.hpp"
#include "verify/program/ops_command.hpp"
#include "verify/program/program.hpp"
#include "verify/program/trace_command.hpp"
#include "verify/program/verify_command.hpp"

namespace {

using namespace attest;

constexpr const char* exit_status_help =
    "Exit status (the gravest of all cases):\n"
    "  0  pass\n"
    "  1  fail: an output is further off than the kernel's arithmetic explains,\n"
    "     or than in the baseline\n"
    "  2  usage, or a report that cannot be written\n"
    "  3  invalid: a file or case is malformed\n"
    "  4  inconclusive: a wrong kernel could have passed too, or nothing could be\n"
    "     held against the baseline\n"
    "  5  internal: attest's own check failed\n"
    "From the gravest: 5, 3, 1, 4, 0.";
constexpr const char* baseline_help =
    "Cases of the same file and name are replaced, others stay. Nothing is written unless all pass;\n"
    "the exit status is that of attest verify.";
constexpr const char* compare_help =
    "Cases are paired by name, or as they are if each file has one.\n"
    "Exit status (the gravest of all cases):\n"
    "  0  equal, bit for bit\n"
    "  1  different: an output is\n"
    "  2  usage, or a report that cannot be written\n"
    "  3  invalid: a file or case is malformed, or has no counterpart\n"
    "  4  inconclusive: inputs, spec or op are not the same\n"
    "  5  internal: attest's own check failed\n"
    "From the gravest: 5, 3, 1, 4, 0.";

int inspect(const Options& options) {
  Output output;
  Verdict gravest = Verdict::pass;
  const TextStyle style = style_of(STDOUT_FILENO);
  bool is_first = true;
  for (const std::string& file : options.files) {
    CaseFindings found;
    found.file = file;
    found.name = "/";
    guarded(found, [&] {
      const Dump dump(file);
      output.print((is_first ? "" : "\n") + painted(printable(file), Color::bold, style) + '\n');
      is_first = false;
      for (const std::string& name : dump.case_names()) {
        found.name = name;
        guarded(found, [&] { output.print(text_of_case(dump.read(name, Dump::Contents::headers), style)); });
        gravest = std::max(gravest, found.verdict);
      }
    });
    gravest = std::max(gravest, found.verdict);
  }
  return output.status(exit_status(gravest));
}

/// `--json` alone means standard output. The argument after it is its value only if it looks like one, so
/// that `attest verify --json dump.h5` does not write over the dump.
std::vector<std::string> with_json_value(std::vector<std::string> arguments) {
  for (std::size_t i = 0; i < arguments.size() && arguments[i] != "--"; ++i) {
    if (arguments[i] == "--json=") throw UsageError("--json= needs a file name");
    if (arguments[i] != "--json") continue;
    const bool has_value =
        i + 1 < arguments.size() && (arguments[i + 1] == "-" || arguments[i + 1].ends_with(".json"));
    arguments[i] += "=" + (has_value ? arguments[i + 1] : "-");
    if (has_value) arguments.erase(arguments.begin() + static_cast<Index>(i) + 1);
  }
  return arguments;
}

void add_case_option(CLI::App& command, Options& options) {
  command.add_option("--case", options.globs, "Only cases whose names match; may be repeated")
      ->allow_extra_args(false)
      ->type_name("GLOB");
}

void add_json_option(CLI::App& command, Options& options) {
  command.add_option("--json", options.json, "JSON instead of the table; =FILE: to FILE beside it")
      ->type_name("[=FILE]");
}

void add_trace_options(CLI::App& command, TraceOptions& options) {
  const auto add = [&](const char* name, auto& value, const char* meaning, const char* form) {
    command.add_option(name, value, meaning)->capture_default_str()->type_name(form);
  };
  add("--shape", options.shape, "Queries, keys, widths of q and of v", "SQxSKxDxE");
  add("--tile", options.tile, "Query rows and keys of a tile", "ROWSxKEYS");
  add("--causal", options.causal, "top_left, bottom_right or none", "NAME");
  command.add_flag("--backward", options.backward, "The gradients, too");
  add("--seed", options.seed, "Of the random inputs", "N");
  add("--digits", options.digits, "Of every number; 17: all", "N");
  add("-o,--output", options.output, "Standard output without it", "FILE");
  command.footer("Exit status: 0, or 2 if an option is wrong or FILE cannot be written.");
}

/// Which cases, how much of them, and how much to say.
void add_judging_options(CLI::App& command, Options& options) {
  add_case_option(command, options);
  const auto read_rows = [&options](const std::string& value) {
    Index count = 0;
    const char* const last = value.data() + value.size();
    const auto [end, error] = std::from_chars(value.data(), last, count);
    options.rows.all = value == "all";
    if (options.rows.all) return;
    if (error != std::errc() || end != last || count < 1)
      throw UsageError("--rows is '" + value + "'; a positive number or all is expected");
    options.rows.count = count;
  };
  command.add_option_function<std::string>("--rows", read_rows, "Only so many rows of each head, by chance")
      ->type_name("N|all");
  command.add_option("--seed", options.rows.seed, "Which rows --rows draws; 1")->type_name("N");
  CLI::Option* quiet =
      command.add_flag("-q,--quiet", options.quiet, "Only cases that did not pass, and how many did");
  command.add_flag("-v,--verbose", options.verbose, "What was measured of every output")->excludes(quiet);
}

void add_inputs_options(CLI::App& command, InputsOptions& options) {
  const auto add = [&](const std::string& names, auto& value, const std::string& help,
                       const std::string& type) {
    return command.add_option(names, value, help)->type_name(type);
  };
  add("OP", options.op, "Operation; alone: list its recipes", "");
  add("--recipe", options.recipes, "What the inputs are like; may be repeated", "NAME")
      ->allow_extra_args(false);
  add("--shape", options.text.shape, "Extents, as attest inputs OP lists them", "B=1,Sq=64,...")
      ->allow_extra_args(false);
  add("--dtype", options.text.dtype, "Element type (default float16)", "TYPE");
  add("--set", options.text.set, "Spec key, or contract/KEY; may be repeated", "KEY=VALUE")
      ->allow_extra_args(false);
  add("--with", options.text.with, "Optional inputs, such as do for a backward pass", "NAME,...")
      ->allow_extra_args(false);
  add("--seed", options.text.seed, "Another seed, other numbers (default 1)", "N");
  add("-o,--output", options.file, "The file to write", "FILE");
  command.add_flag("--describe", options.describes, "Write what makes the inputs, not their values");
  command.add_flag("--force", options.replaces, "Replace the file if there is one");
  add("--suite", options.suite, "The fewest cases that expose all faults", "OP");
  add("--case", options.globs, "Cases of the suite; may be repeated", "GLOB")->allow_extra_args(false);
  command.add_flag("--list", options.lists, "List the recipes of OP, or of all operations");
  command.footer(
      "Run the kernel on in/, write out/ into the same file, and attest verify judges.\n"
      "Exit status: 0, or 2 where nothing was written.");
}

int run(std::vector<std::string> arguments) {
  CLI::App app("attest: is an attention kernel as accurate as its arithmetic allows?", "attest");
  Options options;
  app.set_version_flag("--version", "attest " ATTEST_VERSION, "Print the version and exit");
  app.set_help_flag("-h,--help", "Print this help and exit");
  app.require_subcommand(1);
  app.footer(exit_status_help);

  const CLI::Validator not_empty(
      [](const std::string& file) { return file.empty() ? "needs a file name" : ""; }, "", "not_empty");
  CLI::App* verifying = app.add_subcommand("verify", "Judge the cases of dumps");
  verifying->add_option("FILE", options.files, "Dumps (HDF5)")->required()->type_name("");
  add_json_option(*verifying, options);
  verifying->add_option("--junit", options.junit, "JUnit XML to FILE as well, for CI")
      ->type_name("FILE")
      ->check(not_empty);
  verifying->add_option("--html", options.html, "A page with pictures to FILE as well, for people")
      ->type_name("FILE")
      ->check(not_empty);
  add_judging_options(*verifying, options);
  verifying->add_option("--baseline", options.baseline, "Fail, too, if errors grew since the report in FILE")
      ->type_name("FILE")
      ->check(not_empty);
  verifying->add_flag("--fit", options.fit, "Which other contracts each case satisfies: docs/fit.md");
  verifying->footer(exit_status_help);

  CLI::App* recording = app.add_subcommand("baseline", "Write or update the report for verify --baseline");
  recording->add_option("BASELINE", options.baseline, "The report (JSON)")
      ->required()
      ->type_name("")
      ->check(not_empty);
  recording->add_option("FILE", options.files, "Dumps (HDF5)")->required()->type_name("");
  add_judging_options(*recording, options);
  recording->footer(baseline_help);

  CLI::App* inspecting = app.add_subcommand("inspect", "List what dumps hold");
  inspecting->add_option("FILE", options.files, "Dumps (HDF5)")->required()->type_name("");

  CLI::App* comparing = app.add_subcommand("compare", "Hold the outputs of two dumps against each other");
  comparing->add_option("FILES", options.files, "Dumps A and B (HDF5)")
      ->required()
      ->expected(2)
      ->type_name("");
  add_case_option(*comparing, options);
  add_json_option(*comparing, options);
  comparing->add_flag("--batch", options.batch, "A's one case is the batch that B's cases make up, by name");
  comparing->footer(compare_help);

  std::vector<std::string> names;
  CLI::App* describing = app.add_subcommand("ops", "List the operations, or describe some");
  describing->add_option("NAME", names, "Operations whose datasets and keys are shown")->type_name("");
  describing->footer("Exit status: 0, or 2 if there is no such operation.");

  TraceOptions tracing_options;
  CLI::App* tracing = app.add_subcommand("trace", "Write a small attention tile by tile, as JSON");
  add_trace_options(*tracing, tracing_options);
  InputsOptions wanted;
  CLI::App* generating = app.add_subcommand("inputs", "Write cases for a device to run");
  add_inputs_options(*generating, wanted);

  try {
    arguments = with_json_value(std::move(arguments));
    std::ranges::reverse(arguments);  // as CLI11 wants them
    app.parse(arguments);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() != 0) throw UsageError(e.what());
    std::ostringstream text;
    app.exit(e, text, text);
    Output output;
    output.print(text.str());
    return output.status(0);
  }
  if (comparing->parsed()) return compare(options);
  if (recording->parsed()) return write_baseline(options);
  if (describing->parsed()) return show_ops(names);
  if (tracing->parsed()) return trace(tracing_options);
  if (generating->parsed()) return make_inputs(wanted);
  return verifying->parsed() ? verify(options) : inspect(options);
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of write(), not the end
  try {
    return run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const UsageError& e) {
    complain(std::string(e.what()) + " (see attest --help)");
    return usage_status;
  } catch (const WriteError& e) {
    complain(e.what());
    return usage_status;
  } catch (const std::exception& e) {
    complain(std::string("internal error: ") + e.what() + "; please report it");
    return exit_status(Verdict::internal);
  }
}
