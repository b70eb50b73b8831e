# aldm on CPUs: `docker build -t aldm .`, then `docker run --rm -v "$PWD:/audio" aldm encode talk.m4a`.
FROM python:3.12-slim
RUN pip install --no-cache-dir uv
COPY . /src
# uv knows where the builds of torch without CUDA are: 0.2 GB instead of 3
RUN uv pip install --system --no-cache --torch-backend cpu --constraint /src/constraints.txt /src && rm -r /src
WORKDIR /audio
ENTRYPOINT ["aldm"]
CMD ["--help"]
