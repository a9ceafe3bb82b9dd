# Runs the usual commands; cmake and its presets do the work. Each target sets up what it needs.

.PHONY: verify test sweeps sanitize bench docs goldens tidy format check-format clean

sources = git ls-files '*.hpp' '*.cpp'

verify: ## judge the device dumps that the project ships
	cmake/setup.sh
	cmake --preset release
	cmake --build --preset release --target attest
	build/release/attest verify data/device/*.h5

test: ## all tests but those of `make sweeps`
	cmake/setup.sh
	cmake --preset release
	cmake --build --preset release
	ctest --preset release

sweeps: ## the tests that take minutes: hundreds of emulated kernels, measured tables, a headless browser
	cmake/setup.sh browser
	cmake --preset release
	cmake --build --preset release
	ctest --preset sweeps

sanitize: ## the tests once more, with assertions and sanitizers
	cmake/setup.sh
	cmake --preset debug
	cmake --build --preset debug
	ctest --preset debug

goldens: ## compute data/golden anew, bit for bit
	cmake/setup.sh
	cmake --preset release
	cmake --build --preset release --target attest_goldens
	cmake --build --preset release --target goldens

bench: ## how fast attest::tiled is on this machine; renews docs/speed.md
	cmake/setup.sh bench
	cmake --preset release
	cmake --build --preset release --target attest_bench attest_google_benchmark
	build/release/bench/attest_bench --json bench/results
	bench/table.py

docs: ## the site, in build/docs; open build/docs/index.html
	cmake/setup.sh docs
	cmake --preset release
	cmake --build --preset release --target attest attest_lessons
	/usr/bin/python3 docs/ops.py --check
	/usr/bin/python3 docs/cli.py --check
	/usr/bin/python3 docs/learn/sources.py --check
	build/release/docs/learn/attest_lessons --check docs/learn/numbers
	/usr/bin/python3 -m sphinx -W --keep-going -q -b html -d build/doctrees docs build/docs
	/usr/bin/python3 docs/html_report.py --check --report build/docs/html_report.sample.html
	/usr/bin/python3 docs/site/links.py build/docs

tidy:
	cmake/setup.sh developer
	cmake --preset tidy
	cmake --build --preset tidy

format:
	cmake/setup.sh developer
	$(sources) | xargs clang-format -i

check-format:
	cmake/setup.sh developer
	$(sources) | xargs clang-format --dry-run --Werror

clean:
	rm -rf build
