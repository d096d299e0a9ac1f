# What a developer does; `just` lists it.
default:
    @just --list

# Make the environment
setup:
    uv sync

# Format, and fix what can be fixed
fmt:
    uv run ruff format
    uv run ruff check --fix

# Look for mistakes
lint:
    uv run ruff check
    uv run ruff format --check

# Check the types
type:
    uv run mypy

# Run the tests, or those named: just test tests/unit -k config
test *arguments:
    uv run pytest {{arguments}}

# What CI runs
ci:
    .ci/run

# Look for known holes in the dependencies; asks osv.dev
audit:
    uv audit --frozen

# A fleet on this machine, in a minute
demo:
    uv run hf-downloader demo
