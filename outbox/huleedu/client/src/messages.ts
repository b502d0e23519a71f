/** What comes over the wire: from the WebSocket gateway, and from the page's server. */

/** What a notification says, once for every kind. The gateway relays kinds it does not know. */
export interface Notification<Event extends string = string, Data = unknown> {
  event: Event;
  /** The same on every way a message takes; what one recognises a repetition by. */
  message_id?: string;
  correlation_id?: string;
  /** When it was written, RFC 3339. */
  timestamp?: string;
  data?: Data;
}

/** A file has been assigned to an essay slot of a batch. */
export interface SlotAssignmentData {
  batch_id: string;
  essay_id: string;
  file_upload_id: string;
  filename: string | null;
  /** The position in the batch, from zero. */
  slot_index: number;
  /** Null when it was learnt by asking for the batch's status. */
  text_storage_id: string | null;
  /** When it was assigned, RFC 3339; from a status, when the essay last changed. */
  timestamp: string;
  /** The first upload of the same text, whose slot this is. */
  duplicate_of?: string;
}

/** No slot of the batch was left for a file. */
export interface ExcessData {
  batch_id: string;
  file_upload_id: string;
  filename: string | null;
  reason: "NO_AVAILABLE_SLOT";
  /** When that was found, RFC 3339; null when it was learnt by asking for the batch's status. */
  timestamp: string | null;
}

/** A notification of {@link SlotAssignmentData}. */
export type SlotAssigned = Notification<"essay_slot_assigned", SlotAssignmentData> & {
  data: SlotAssignmentData;
};

/** A notification of {@link ExcessData}. */
export type Excess = Notification<"essay_excess", ExcessData> & { data: ExcessData };

/** One essay in a batch's status. What is not known yet is null or missing. */
export interface EssayStatus {
  essay_id: string;
  file_upload_id?: string | null;
  filename?: string | null;
  slot_index?: number | null;
  spellcheck_status?: string | null;
  spellcheck_correction_count?: number | null;
  spellcheck_corrected_text_storage_id?: string | null;
  spellcheck_error_detail?: string | null;
  cj_assessment_status?: string | null;
  cj_rank?: number | null;
  cj_score?: number | null;
  cj_assessment_error_detail?: string | null;
  last_updated: string;
}

/** A file for which no slot was left, in a batch's status. */
export interface ExcessFile {
  file_upload_id: string;
  filename?: string | null;
  text_storage_id?: string | null;
}

/** How far a batch is. */
export type OverallStatus =
  | "pending_content"
  | "ready"
  | "processing"
  | "completed_successfully"
  | "completed_with_failures"
  | "failed"
  | "cancelled";

/** The answer to `GET /v1/batches/{batch_id}/status`. */
export interface BatchStatus {
  batch_id: string;
  assignment_id?: string | null;
  overall_status: OverallStatus;
  essay_count: number;
  completed_essay_count: number;
  failed_essay_count: number;
  requested_pipeline?: string | null;
  current_phase?: string | null;
  essays: EssayStatus[];
  excess?: ExcessFile[];
  created_at: string;
  last_updated: string;
  processing_started_at?: string | null;
  processing_completed_at?: string | null;
  student_prompt_ref?: unknown;
}

/** True if this is an answer on a batch, and not, say, the login page of a network. */
export function isBatchStatus(value: unknown): value is BatchStatus {
  if (!has(value, "batch_id")) return false;
  const { essays, excess = [] } = value as { essays?: unknown; excess?: unknown };
  return [essays, excess].every((list) => Array.isArray(list) && list.every(isObject));
}

/** Reads what the gateway sent; null if it is no notification. */
export function parse(text: unknown): Notification | null {
  if (typeof text !== "string") return null;
  try {
    const message: unknown = JSON.parse(text);
    return isNotification(message) ? message : null;
  } catch {
    return null;
  }
}

/** True if this tells of an assigned slot. */
export function isSlotAssigned(message: Notification): message is SlotAssigned {
  return (
    message.event === "essay_slot_assigned" && has(message.data, "batch_id", "essay_id", "file_upload_id")
  );
}

/** True if this tells of a file for which no slot was left. */
export function isExcess(message: Notification): message is Excess {
  return message.event === "essay_excess" && has(message.data, "batch_id", "file_upload_id");
}

/** The assignments that a batch's status tells of. */
export function* assignmentsIn(status: BatchStatus): Generator<SlotAssignmentData> {
  for (const essay of status.essays) {
    if (essay.file_upload_id == null || essay.slot_index == null) continue;
    yield {
      batch_id: status.batch_id,
      essay_id: essay.essay_id,
      file_upload_id: essay.file_upload_id,
      filename: essay.filename ?? null,
      slot_index: essay.slot_index,
      text_storage_id: null,
      timestamp: essay.last_updated,
    };
  }
}

/** The files without a slot that a batch's status tells of. */
export function* excessIn(status: BatchStatus): Generator<ExcessData> {
  for (const file of status.excess ?? []) {
    yield {
      batch_id: status.batch_id,
      file_upload_id: file.file_upload_id,
      filename: file.filename ?? null,
      reason: "NO_AVAILABLE_SLOT",
      timestamp: null,
    };
  }
}

function isNotification(value: unknown): value is Notification {
  if (!isObject(value)) return false;
  const { event, message_id: id } = value;
  return typeof event === "string" && (id === undefined || typeof id === "string");
}

/** True if these are there, as texts. */
function has(data: unknown, ...names: string[]): boolean {
  return isObject(data) && names.every((name) => typeof data[name] === "string");
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
