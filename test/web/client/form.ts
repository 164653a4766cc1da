// The form of form.html: what to show for each outcome, also for screen readers.
import createClient from "openapi-fetch";
import { requestPasswordReset, type PasswordResetOutcome } from "./password-reset.js";
import type { paths } from "./schema.js";

const form = element("password-reset", HTMLFormElement);
const email = element("email", HTMLInputElement);
const emailError = element("email-error", HTMLElement);
const submit = element("submit", HTMLButtonElement);
const formStatus = element("form-status", HTMLElement);

const client = createClient<paths>({ baseUrl: apiBase() });

form.noValidate = true; // show the server's messages beside the field, not the browser's
form.addEventListener("submit", (event) => {
	event.preventDefault();
	if (submit.getAttribute("aria-disabled") !== "true") {
		void send();
	}
});

async function send(): Promise<void> {
	enable(false);
	showFieldError("");
	say("status", "Sending …");
	const outcome = await requestPasswordReset(client, { email: email.value.trim(), callbackOrigin: location.origin });
	show(outcome);
}

function show(outcome: PasswordResetOutcome): void {
	switch (outcome.kind) {
		case "acknowledged":
			form.reset();
			say("status", outcome.message);
			break;
		case "invalid": {
			const { email: wrongEmail, ...otherErrors } = outcome.fieldErrors;
			showFieldError(wrongEmail ?? "");
			// Errors of fields that this form does not have are shown above it.
			say("alert", [outcome.message, ...Object.values(otherErrors), ...outcome.generalErrors].join(" "));
			if (wrongEmail !== undefined) {
				email.focus();
			}
			break;
		}
		case "rate_limited":
			countDown(outcome.waitSeconds);
			return; // the countdown enables the button at its end
		case "unavailable":
		case "not_delivered":
		case "server_error":
		case "refused":
			say("alert", outcome.message);
			break;
		case "unexpected":
		case "no_answer":
			say("alert", "The server could not be reached. Try again in a moment.");
			break;
		default:
			outcome satisfies never; // a new outcome does not compile until it is handled
	}
	enable(true);
}

/** Shows an error beside the field, or removes it. */
function showFieldError(message: string): void {
	emailError.textContent = message;
	emailError.hidden = message === "";
	if (message === "") {
		email.removeAttribute("aria-invalid");
		email.removeAttribute("aria-describedby");
	} else {
		email.setAttribute("aria-invalid", "true");
		email.setAttribute("aria-describedby", emailError.id);
	}
}

/** An alert interrupts a screen reader; a status waits. */
function say(role: "alert" | "status", ...content: (string | Node)[]): void {
	formStatus.setAttribute("role", role);
	formStatus.replaceChildren(...content);
}

/** Prevents submission for so many seconds. A screen reader says it once, and not each second. */
function countDown(seconds: number): void {
	// By the clock, because timers of a tab in the background are late.
	const end = performance.now() + seconds * 1000;
	const left = document.createElement("span");
	left.setAttribute("role", "timer");
	left.setAttribute("aria-live", "off");
	const tick = (): void => {
		const whole = Math.ceil((end - performance.now()) / 1000);
		if (whole > 0) {
			left.textContent = whole === 1 ? "1 second" : `${whole} seconds`;
			setTimeout(tick, 250);
		} else {
			say("status", "You can try again now.");
			enable(true);
		}
	};
	tick();
	say("alert", "Too many requests. Try again in ", left, ".");
}

/** This does not use `disabled`, which would take the focus away from the pressed button. */
function enable(enabled: boolean): void {
	submit.setAttribute("aria-disabled", String(!enabled));
}

function apiBase(): string {
	const written = form.dataset["api"] ?? "";
	// Only on a developer's own machine. Elsewhere a link could make this page send the typed address to
	// anybody.
	const here = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
	return (here && new URLSearchParams(location.search).get("api")) || written;
}

function element<T extends HTMLElement>(id: string, type: new () => T): T {
	const found = document.getElementById(id);
	if (!(found instanceof type)) {
		throw new Error(`the page has no ${type.name} with the id ${id}`);
	}
	return found;
}
