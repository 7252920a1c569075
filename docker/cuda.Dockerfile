# vosformer serve on an NVIDIA GPU: docker build -f docker/cuda.Dockerfile -t vosformer:cuda . ; docker run --gpus all ...
# PyTorch's wheels on PyPI bring their own CUDA libraries: the image needs none, the host only a driver and its container toolkit.
FROM python:3.12-slim
WORKDIR /app
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src ./src
RUN pip install --no-cache-dir -c constraints.txt ".[serve]" \
    && useradd --create-home --uid 1000 vosformer
USER 1000
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
EXPOSE 8123
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8123/health')"]
ENTRYPOINT ["vosformer", "serve", "--host", "0.0.0.0", "--allow-host", "*", "--device", "cuda"]
