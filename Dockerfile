FROM python:3.12-slim

RUN pip install --no-cache-dir uv \
    && useradd --uid 1000 --create-home downloader \
    && install -d -o downloader -g downloader /downloads

WORKDIR /app
COPY pyproject.toml uv.lock README.md LICENSE ./
COPY distributed_downloader ./distributed_downloader
RUN uv sync --locked --no-default-groups --no-editable --no-cache --compile-bytecode

# Whoever `--user` names can write to this HOME.
ENV PATH=/app/.venv/bin:$PATH HOME=/tmp OUTPUT_DIR=/downloads
USER downloader
WORKDIR /downloads
ENTRYPOINT ["hf-downloader"]
CMD ["--help"]
