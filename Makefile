# The few words a person needs. CI calls `make test`.

.PHONY: run test chaos soak lint openapi bench fuzz instructions screenshots stack

# Starts the service on the embedded default.
run:
	cargo run --release --locked

# Installs what the tests need where it is absent, and passes them. The first `cargo test` also
# builds the examples as the programs that tests/suite runs; the second runs their own tests.
test:
	tests/install-tools.sh
	$(MAKE) lint
	cargo test --locked
	cargo test --locked --examples
	cargo test --locked --features otel --test otel

# Hurts everything for minutes while a million reads are checked, and prints what was seen; on each release of
# Redis, with the exactness of the stats. `make test` has the same in short, on Debian's.
chaos:
	tests/install-tools.sh
	CHAOS=long cargo test --locked --test suite -- --nocapture --test-threads 1 staleness:: chaos::
	for release in 6.2 8.2; do \
		REDIS=$$release CHAOS=long cargo test --locked --test suite -- --nocapture --test-threads 1 \
			staleness:: exact_numbers:: exact_under_load:: || exit 1; \
	done

# Loads a service for an hour while PostgreSQL and a shard go and come, and prints memory, descriptors, threads and
# files every minute. `make test` has the same for twenty seconds.
SOAK_MINUTES = 60
soak:
	tests/install-tools.sh
	SOAK_MINUTES=$(SOAK_MINUTES) cargo test --locked --test suite -- --nocapture soak::

# What a machine can say about the code without running it.
lint:
	cargo fmt --check
	cargo clippy --locked --all-targets --all-features -- --deny warnings

# Writes docs/openapi.json, the committed form of what the code says of its interface; a test compares the two.
openapi:
	OPENAPI=renew cargo test --locked --lib http::openapi

# Measures the service beside nginx, webdis, twemproxy and Redis, and writes bench/RESULTS.md: under 15 minutes
# once it is built, or 2 with BENCH_ARGS=--quick. bench/main.rs says what it measures and how.
BENCH_ARGS =
bench:
	tests/install-tools.sh webdis webdis nutcracker /usr/sbin/nutcracker wrk wrk
	cargo bench --locked --profile dist --bench peers -- $(BENCH_ARGS)

# Looks for input that breaks a property, FUZZ_SECONDS a target; `cargo test` replays what was kept. Needs
# rustup's nightly compiler and a C++ compiler, and installs cargo-fuzz where it is absent.
FUZZ_SECONDS = 600
fuzz:
	fuzz/run.sh $(FUZZ_SECONDS)

# Counts the instructions of a hit, of a GET through Redis and of a PUT, under callgrind: noise hardly moves them.
instructions:
	tests/install-tools.sh valgrind valgrind
	cargo bench --locked --bench instructions

# Takes the pictures in docs/img of a service under the load of a made-up web shop, for ten minutes; for one with
# SCREENSHOTS_ARGS='--seconds 60'. screenshots/main.rs says what is in them.
SCREENSHOTS_ARGS =
screenshots:
	tests/install-tools.sh
	cargo bench --locked --profile release --bench screenshots -- $(SCREENSHOTS_ARGS)

# nginx, two instances, three shards, PostgreSQL, Prometheus and Grafana in containers.
stack:
	docker compose up -d --build --wait
