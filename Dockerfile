# Not built here: there was no container engine where this was written. What was checked without one: the build command
# as it stands below, that its program is static, and that it serves as user 65532 with a read-only root and no /tmp.
#
#   docker build -t hanmadi .
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges --stop-timeout 45 --ulimit nofile=65536:65536 \
#     -v hanmadi-data:/data -v /etc/hanmadi/secrets:/run/secrets:ro -e HANMADI_TOKEN_SECRET_FILE=/run/secrets/token.secret \
#     -e HANMADI_TOKEN_OPERATOR_SECRET_FILE=/run/secrets/operator.secret -p 127.0.0.1:8080:8080 hanmadi

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /out/hanmadi ./cmd/hanmadi
# A volume takes over owner and mode of the folder that it is laid over.
RUN install -d -m 0700 -o 65532 -g 65532 /out/data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/hanmadi /hanmadi
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
WORKDIR /
VOLUME /data
# Operators' calls and metrics are for this container only. To have them scraped from another one, set
# HANMADI_ADMIN_LISTEN=0.0.0.0:8081, and do not publish that port.
ENV HANMADI_LISTEN=0.0.0.0:8080 HANMADI_ADMIN_LISTEN=127.0.0.1:8081 HANMADI_LOG_URL=sqlite:/data/hanmadi.db
EXPOSE 8080
# The program drains for drain.over (20 s) and up to 15 s more: stop it with more than the engine's 10 s.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/hanmadi", "health"]
ENTRYPOINT ["/hanmadi"]
CMD ["serve"]
