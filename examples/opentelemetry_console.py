"""A call's span and metrics, printed as OpenTelemetry has them."""

import asyncio

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from fluence_async import FluenceSession
from fluence_async.contrib.opentelemetry import OpenTelemetryHook


async def main() -> None:
    spans = TracerProvider()
    spans.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    metrics = MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter())])
    telemetry = OpenTelemetryHook(tracer_provider=spans, meter_provider=metrics)

    async with FluenceSession(hooks=[telemetry]) as fluence:
        with spans.get_tracer("my-program").start_as_current_span("a visitor's question"):
            async with fluence.chat.completions.stream(
                model="fluence-chat", messages="What is 6 times 7?", tags={"tenant": "acme"}
            ) as stream:
                await stream.get_final_text()

    metrics.shutdown()


asyncio.run(main())
