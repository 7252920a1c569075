# vosformer serve on the CPU: docker build -f docker/cpu.Dockerfile -t vosformer .
FROM python:3.12-slim
WORKDIR /app
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src ./src
# The CPU build of PyTorch has an index of its own; from PyPI Linux gets that for CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" -r constraints.txt \
    && pip install --no-cache-dir -c constraints.txt ".[serve]" \
    && useradd --create-home --uid 1000 vosformer
# A number, since Kubernetes cannot tell from a name that it is not root.
USER 1000
EXPOSE 8123
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8123/health')"]
# The token comes in VOSFORMER_TOKEN; without it a new one is printed. Which names lead here is the host's affair.
ENTRYPOINT ["vosformer", "serve", "--host", "0.0.0.0", "--allow-host", "*"]
