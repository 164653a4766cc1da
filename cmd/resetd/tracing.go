package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/resetd/resetd/impl/setting"
	"github.com/resetd/resetd/impl/upstream"
)

// tracingWanted says whether OpenTelemetry's standard variables set an exporter, and refuses values that are not built
// in: only spans are exported, as OTLP over HTTP.
// https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
func tracingWanted(variables map[string]string, wrong *setting.Mistakes) bool {
	const exporter = "OTEL_TRACES_EXPORTER"
	wanted := false
	if variables["OTEL_EXPORTER_OTLP_ENDPOINT"]+variables["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]+variables[exporter] != "" {
		for name, value := range variables {
			if strings.HasPrefix(name, "OTEL_") {
				wrong.Judge(name, setting.CheckText(value))
			}
		}
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		if variables[name] == "" {
			continue
		}
		wanted = true
		if u, err := url.Parse(variables[name]); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			wrong.Add(name, "must be an address like http://collector:4318")
		}
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
		if value := variables[name]; value != "" && value != "http/protobuf" {
			wrong.Add(name, "must be http/protobuf")
		}
	}
	switch variables[exporter] {
	case "":
	case "otlp":
		wanted = true
	case "none":
		wanted = false
	default:
		wrong.Add(exporter, "must be otlp or none")
	}
	wanted = wanted && !strings.EqualFold(variables["OTEL_SDK_DISABLED"], "true")
	if wanted {
		checkTracing(variables, wrong)
	}
	return wanted
}

// samplers are the names of OpenTelemetry's samplers.
var samplers = []string{"", "always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"}

// checkTracing checks values that the SDK would ignore, or report in its own words when spans are lost.
func checkTracing(variables map[string]string, wrong *setting.Mistakes) {
	sampler := variables["OTEL_TRACES_SAMPLER"]
	if !slices.Contains(samplers, strings.ToLower(sampler)) {
		wrong.Add("OTEL_TRACES_SAMPLER", "must be one of %s", strings.Join(samplers[1:], ", "))
	}
	if argument := variables["OTEL_TRACES_SAMPLER_ARG"]; argument != "" && strings.HasSuffix(strings.ToLower(sampler), "traceidratio") {
		if ratio, err := strconv.ParseFloat(argument, 64); err != nil || !(ratio >= 0 && ratio <= 1) {
			wrong.Add("OTEL_TRACES_SAMPLER_ARG", "must be a number from 0 to 1")
		}
	}
	for _, signal := range []string{"", "TRACES_"} {
		name := "OTEL_EXPORTER_OTLP_" + signal
		if timeout := variables[name+"TIMEOUT"]; timeout != "" {
			if ms, err := strconv.Atoi(timeout); err != nil || ms <= 0 {
				wrong.Add(name+"TIMEOUT", "must be a whole number of milliseconds")
			}
		}
		for pair := range strings.SplitSeq(variables[name+"HEADERS"], ",") {
			key, value, found := strings.Cut(pair, "=")
			_, err := url.PathUnescape(value)
			if pair != "" && (!found || strings.TrimSpace(key) == "" || err != nil) {
				wrong.Add(name+"HEADERS", "must be NAME=VALUE, comma separated, with special characters as %%XX")
			}
		}
		for _, file := range []string{"CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"} {
			if path := variables[name+file]; path != "" {
				if _, err := os.Stat(path); err != nil {
					wrong.Add(name+file, "must be the path of a file that can be read (%s)", fileCause(err))
				}
			}
		}
	}
}

// flushTimeout is the time for the last spans at the stop.
const flushTimeout = 3 * time.Second

// newTracer returns a tracer that sends spans as the standard variables say; the SDK reads them itself. close sends the
// remaining spans.
func newTracer(ctx context.Context, logger *slog.Logger) (tracer trace.Tracer, closeTracer func(), err error) {
	// The SDK uses globals, and its errors repeat addresses and answers.
	otel.SetLogger(logr.Discard())
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		logger.Warn("spans were lost", "error", upstream.Cause(err).Error())
	}))
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("tracing: %w", upstream.Cause(err))
	}
	described, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "resetd"), attribute.String("service.version", version)),
		resource.WithTelemetrySDK(),
		resource.WithFromEnv(), // last: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win
	)
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", upstream.Cause(err))
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(described))
	return provider.Tracer("github.com/resetd/resetd"), func() {
		ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			logger.Warn("spans were lost", "error", upstream.Cause(err).Error())
		}
	}, nil
}
