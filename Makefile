# The commands that a developer needs. CI runs `make test` and `make lint`.

.PHONY: run test chaos soak lint openapi bench fuzz instructions screenshots stack

# Starts the service with the embedded store.
run:
	cargo run --release --locked

# Installs the tools that the tests need, if they are missing, and runs all tests. The first `cargo test` also
# builds the examples, because tests/suite runs them as programs; the second one runs their own tests.
test:
	tests/install-tools.sh
	cargo test --locked
	cargo test --locked --examples
	cargo test --locked --features otel --test otel

# Injects faults for minutes while a million reads are checked, and prints the results; on each release of
# Redis, also checks that the stats are exact. `make test` runs a short version, on Debian's Redis.
chaos:
	tests/install-tools.sh
	CHAOS=long cargo test --locked --test suite -- --nocapture --test-threads 1 \
		staleness:: loop_checker:: stampede:: chaos::
	for release in 6.2 8.2; do \
		REDIS=$$release CHAOS=long cargo test --locked --test suite -- --nocapture --test-threads 1 \
			staleness:: loop_checker:: exact_numbers:: exact_under_load:: || exit 1; \
	done

# Puts load on a service for an hour while PostgreSQL and a shard stop and return, and prints memory, descriptors,
# threads and files every minute. `make test` does the same for twenty seconds.
SOAK_MINUTES = 60
soak:
	tests/install-tools.sh
	SOAK_MINUTES=$(SOAK_MINUTES) cargo test --locked --test suite -- --nocapture soak::

# Checks format and lints.
lint:
	cargo fmt --check
	cargo clippy --locked --all-targets --all-features -- --deny warnings

# Generates docs/openapi.json from the code; a test checks that the committed file is up to date.
openapi:
	OPENAPI=renew cargo test --locked --lib http::openapi

# Measures the service beside nginx, webdis, twemproxy and Redis, and writes bench/RESULTS.md. After the build this
# takes less than 15 minutes, or 2 with BENCH_ARGS=--quick. bench/main.rs says what is measured and how.
BENCH_ARGS =
bench:
	tests/install-tools.sh webdis webdis nutcracker /usr/sbin/nutcracker wrk wrk
	cargo bench --locked --profile dist --bench peers -- $(BENCH_ARGS)

# Searches for input that breaks a property, FUZZ_SECONDS for each target; `cargo test` replays the corpus. Needs
# rustup's nightly compiler and a C++ compiler, and installs cargo-fuzz if it is missing.
FUZZ_SECONDS = 600
fuzz:
	fuzz/run.sh $(FUZZ_SECONDS)

# Counts the instructions of a hit, a GET through Redis and a PUT, under callgrind: almost without noise.
instructions:
	tests/install-tools.sh valgrind valgrind
	cargo bench --locked --bench instructions

# Takes the pictures in docs/img from a service under the load of an invented web shop. This takes ten minutes, or
# one with SCREENSHOTS_ARGS='--seconds 60'. screenshots/main.rs says what the pictures show.
SCREENSHOTS_ARGS =
screenshots:
	tests/install-tools.sh
	cargo bench --locked --profile release --bench screenshots -- $(SCREENSHOTS_ARGS)

# Starts nginx, two instances, three shards, PostgreSQL, Prometheus and Grafana in containers.
stack:
	docker compose up -d --build --wait
